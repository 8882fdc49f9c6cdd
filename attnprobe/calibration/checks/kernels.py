"""Intervals over the channels of a layer of long convolutions, which at the start are drawn one like the other."""

import functools

import numpy as np

from attnprobe.calibration.outcomes import Outcome, covers
from attnprobe.calibration.truths import masses
from attnprobe.calibration.worlds import LENGTH, Cell, N, Replica
from attnprobe.capture import convolutions
from attnprobe.models import Transformer, TransformerConfig
from attnprobe.models.initialisation import make_model
from attnprobe.models.mixers.state_space.s4d import S4DSettings
from attnprobe.probes import kernels
from attnprobe.tasks import Spec

CHANNELS = 4000  # that the truth rests on: its own error takes .003 off a coverage of .95
SYSTEM = S4DSettings(states=8, step_low=0.01, step_high=1.0)


def asked(cell: Cell) -> bool:
    """Neither data nor codes of positions touch a kernel, and nothing limits what it sees but causality."""
    return cell.positions == "none" and cell.data == "white" and cell.visibility != "windows"


def check(replica: Replica) -> list[Outcome]:
    model = of_channels(N, replica.subject.space.layout.shape, replica.cell.visibility == "causal", replica.seed)
    found = kernels.measure(convolutions.kernels(model), convolutions.layout(model), seed=replica.seed)
    truth = population(replica.cell)
    return [covers(row.quantity, row.interval, truth[row.quantity]) for row in found.rows]


def of_channels(channels: int, shape: tuple[int, ...], causal: bool, seed: int) -> Transformer:
    """Untrained, of one layer with so many channels."""
    config = TransformerConfig(d_model=channels, layers=1, heads=1, d_mlp=0, causal=causal, mixer=SYSTEM)
    spec = Spec(length=LENGTH, classes=2, grid=shape if len(shape) == 2 else None)
    return make_model(config, spec, "values", seed=seed)


@functools.cache
def population(cell: Cell) -> dict[str, float]:
    """The mean of every quantity over ``CHANNELS`` others, over all pairs of positions."""
    causal, shape = cell.visibility == "causal", (4, 4) if cell.visibility == "full" else (LENGTH,)
    found = []
    for seed in range(CHANNELS // 200):
        (kernel,) = convolutions.kernels(of_channels(200, shape, causal, 2**31 + seed))
        offset = np.arange(LENGTH) - np.arange(LENGTH)[:, None]  # key - query
        weights = np.abs(kernel)[:, offset + LENGTH - 1] * (offset <= 0 if causal else 1)
        found.append(masses(weights / weights.sum(-1, keepdims=True), shape, causal=causal))
    return {name: float(np.concatenate([part[name] for part in found]).mean()) for name in found[0]}
