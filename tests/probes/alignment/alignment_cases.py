"""A small model with data, and what is gathered from it, for the tests of the alignment probe."""

import numpy as np
import torch

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment.gather import gather
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.alignment.rows import PricedSettings
from attnprobe.scores.directions import Projector
from attnprobe.scores.named import named_directions
from attnprobe.tasks import Spec, Split

LENGTH, CLASSES = 11, 3


def make_case(n: int, *, padded: bool = False, **config) -> Ours:
    spec = Spec(length=LENGTH, classes=CLASSES)
    settings = {"d_model": 12, "layers": 2, "heads": 3, "d_mlp": 7} | config
    model = make_model(TransformerConfig(**settings), spec, "values", seed=1).double()
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, LENGTH, 1, generator=generator, dtype=torch.float64)
    lengths = torch.randint(5, LENGTH + 1, (n,), generator=generator) if padded else None
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(n) % CLASSES, lengths=lengths))


def make_settings(seed: int = 0, shuffles: int = 99) -> PricedSettings:
    return PricedSettings(level=0.95, power=0.8, shuffles=shuffles, seed=seed)


def gather_all(subject: Ours, loss: str, *, groups: int = 4, rows: int = 100, batch: int = 3):
    layers, heads = subject.shape
    directions = named_directions(subject.space, reach=2)
    projector = Projector(subject.space, directions, layers=layers, heads=heads)
    plan = Plan(
        method="streamed", groups=groups, batch=batch, rows=rows, batch_of_all=batch, rows_of_all=rows, keep_scores=True
    )
    return gather(subject, np.array_split(np.arange(subject.samples), groups), loss, projector, plan), projector
