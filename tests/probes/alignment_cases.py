"""A small model with data, and what is gathered from it, for the tests of the alignment probe."""

import numpy as np
import torch

from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.probes.alignment.gather import gather
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.alignment.statistics import (
    Settings,
)
from attnprobe.probes.sequences import space_of
from attnprobe.scores.directions import Projector, named_directions
from attnprobe.tasks import Spec, Split

LENGTH, CLASSES = 11, 3


def make_case(n: int, *, padded: bool = False, **config) -> tuple[Transformer, Split]:
    spec = Spec(length=LENGTH, classes=CLASSES)
    settings = {"d_model": 12, "layers": 2, "heads": 3, "d_mlp": 7} | config
    model = make_model(TransformerConfig(**settings), spec, "values", seed=1).double()
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, LENGTH, 1, generator=generator, dtype=torch.float64)
    lengths = torch.randint(4, LENGTH + 1, (n,), generator=generator) if padded else None
    return model, Split(inputs=inputs, labels=torch.arange(n) % CLASSES, lengths=lengths)


def make_settings(seed: int = 0, shuffles: int = 99) -> Settings:
    return Settings(level=0.95, shuffles=shuffles, controls=9, generator=np.random.default_rng(seed))


def gather_all(model: Transformer, split: Split, probed, *, groups: int = 4, rows: int = 100, batch: int = 3):
    space = space_of(model)
    directions = named_directions(space, reach=2, generator=np.random.default_rng(0))
    projector = Projector(space, directions, layers=len(model.blocks), heads=model.config.heads)
    plan = Plan(method="streamed", batch=batch, rows=rows, keep_scores=True)
    return gather(model, split, np.array_split(np.arange(len(split)), groups), probed, projector, plan), projector
