"""Ten small runs whose numbers are pinned: distinct tasks, objectives and mixers.

``python -m tests.training.golden`` trains them on 1 and on 2 threads and prints what ``GOLDEN`` should be.
"""

import tempfile
from pathlib import Path

import torch

from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.training.execute import execute
from attnprobe.training.monitor import Silent

NUMBERS = ("train_loss", "validation_loss", "test_loss")
SMALL = (
    "task.n_train=40", "task.n_validation=20", "task.n_test=20", "model.layers=2", "model.d_model=16", "model.d_mlp=24",
    "model.heads=2", "pretrain.epochs=2", "pretrain.batch_size=10", "finetune.epochs=3", "finetune.batch_size=10",
)  # fmt: skip
CAUSAL = ("task.side=5", "model.causal=true")
RUNS: dict[str, tuple[str, ...]] = {  # name: preset and what is changed
    "textures": ("textures", "task.side=5"),
    "textures, next input": ("textures", *CAUSAL, "pretrain.objective.name=causal"),
    "textures, denoising": ("textures", *CAUSAL, "pretrain.objective.name=denoising", "pretrain.objective.loss=l2"),
    "textures, batch norm and dropout": ("textures", "task.side=5", "model.norm=batch", "model.dropout=0.2"),
    "listops": ("listops-small",),
    "listops, windows": ("listops-local-small",),
    "listops, S4D": ("listops-s4d-small",),
    "listops, DLR": ("listops-dlr-small",),
    "listops, linear": ("listops-linear-small",),
    "pathfinder": ("pathfinder-small",),
}


def trained(name: str) -> list[float]:
    """The losses of a run at its end, on all three splits."""
    preset, *changes = RUNS[name]
    config = run.from_table(override(presets.read_table(preset), [*SMALL, *changes]))
    with tempfile.TemporaryDirectory() as folder:
        result = execute(config, Path(folder) / "run", device=torch.device("cpu"), monitor=Silent())
    return [result[number] for number in NUMBERS]


if __name__ == "__main__":
    for name in RUNS:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            try:
                found.append(trained(name))
            except Exception as error:
                print(name, type(error).__name__, error, flush=True)
        if len(found) == 2:
            apart = max(abs(a - b) / abs(a) for a, b in zip(*found, strict=True))
            print(f'    "{name}": ({", ".join(f"{x:.7g}" for x in found[0])}),  # {apart:.1g}', flush=True)
