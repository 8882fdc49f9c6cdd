"""How far the label loss of untrained models is from log(classes), for every mixer on every task that is here.

As a program, ``python -m tests.models.initial_loss`` prints the table that experiments/README.md quotes.
"""

import functools
import math

import numpy as np
import torch

from attnprobe import presets, run
from attnprobe.models import Transformer, make_model
from attnprobe.models.heads import pool
from attnprobe.models.mixers import MIXERS
from attnprobe.objectives import Classification, sequences
from attnprobe.tasks import Batch, Data, Task

SEEDS, SEQUENCES = 10, 32
PRESETS = {
    "textures": {}, "fashion-mnist": {}, "listops-small": {"n_train": 200, "n_validation": 50, "n_test": 200},
    "pathfinder-small": {"n_train": 50, "n_validation": 50, "n_test": 200},
}  # fmt: skip
SIZES = {
    "block_local": {"window": 8}, "spade": {"window": 8, "states": 16}, "s4": {"states": 16}, "s4d": {"states": 16},
    "dlr": {"states": 64}, "linformer": {"rank": 16}, "longformer": {"window": 8}, "bigbird": {"block": 4},
    "reformer": {"chunk": 8}, "performer": {"features": 64}, "mega": {"states": 4},
}  # fmt: skip


@torch.no_grad()
def excess(model: Transformer, batch: Batch) -> float:
    """Mean label loss minus log(classes)."""
    losses = Classification().losses(model, batch, seed=0, epoch=0, training=True)
    return losses.mean().item() - math.log(model.spec.classes)


@torch.no_grad()
def expected(model: Transformer, batch: Batch) -> float:
    """Of the excess over draws of the head, to second order.

    Its weights and shifts are uniform in +-1 / sqrt(d_model), as torch's default is, which the published code takes.
    Logits of features f have variance s^2 = (|f|^2 + 1) / (3 d_model) then, independent of each other, and the mean of
    log(sum of exp) exceeds log(classes) by s^2 (1 - 1 / classes) / 2.
    """
    both = sequences(model, batch)
    pooled = pool(model(both.inputs, valid=both.valid), model.config.readout, both.valid)
    variance = (pooled.square().sum(-1) + 1) / (3 * model.config.d_model)
    return variance.mean().item() * (1 - 1 / model.spec.classes) / 2


@functools.cache
def loaded(task: Task) -> Data:
    return task.load()


def measured(mixer: str, preset: str) -> tuple[np.ndarray, np.ndarray]:
    """excess and expected (seed,)"""
    table = presets.read_table(preset)
    table["task"] |= PRESETS[preset]
    table["model"]["mixer"] = {"name": mixer, **SIZES.get(mixer, {})}
    config = run.from_table(table)
    data = loaded(config.task)
    batch = data.test.batch(torch.arange(min(SEQUENCES, len(data.test))))
    models = [make_model(config.model, data.spec, "values", seed=seed) for seed in range(SEEDS)]
    return np.array([excess(m, batch) for m in models]), np.array([expected(m, batch) for m in models])


def main() -> None:
    print(f"| mixer | {' | '.join(PRESETS)} |\n|{'---|' * (1 + len(PRESETS))}")
    for mixer in MIXERS:
        cells = []
        for preset in PRESETS:
            found, wanted = measured(mixer, preset)
            cells.append(f"{found.mean():.3f} +- {found.std(ddof=1):.3f} ({wanted.mean():.3f})")
        print(f"| `{mixer}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
