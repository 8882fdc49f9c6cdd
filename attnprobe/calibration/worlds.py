"""Worlds in which the truth is known: a small untrained model, and data that have no structure by position or label.

Every replica has a model and data of its own. Its probes see ``N`` sequences; the truth of an interval is the value of
the same model on ``POPULATION`` other sequences of the same kind.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attnprobe.calibration.truths import Scores, distances, score_gradients, unit_direction
from attnprobe.capture import ours
from attnprobe.config import require
from attnprobe.errors import AttnprobeError, ConfigError
from attnprobe.models import Transformer, TransformerConfig
from attnprobe.models.initialisation import make_model
from attnprobe.models.mixers.attention import AttentionSettings
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.streams import stream
from attnprobe.tasks import Spec, Split
from attnprobe.tasks.fashion_mnist import FashionMNIST
from attnprobe.tasks.textures import Textures

Positions = Literal["none", "learned", "sinusoidal", "rotary"]
Visibility = Literal["full", "padded", "causal", "windows"]
Source = Literal["white", "permuted"]

POSITIONS: tuple[Positions, ...] = ("none", "learned", "sinusoidal", "rotary")
VISIBILITIES: tuple[Visibility, ...] = ("full", "padded", "causal", "windows")
SOURCES: tuple[Source, ...] = ("white", "permuted")

N = 40  # sequences that the probes see
POPULATION = 1500  # others, which tell the truth: its own error takes .003 off a coverage of .95
SIDE, CLASSES = 4, 3
LENGTH = SIDE * SIDE
WINDOW = 3  # of attention in windows, which sees its neighbours too
SHORTEST = 8  # real positions of a padded sequence
RADIUS = 2.0  # of the direction along which gradients are measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of world. Full attention sees a grid of pixels; the other sequences are lines."""

    positions: Positions
    visibility: Visibility
    data: Source

    @property
    def name(self) -> str:
        return f"{self.positions}/{self.visibility}/{self.data}"

    @staticmethod
    def named(name: str) -> "Cell":
        return next(cell for cell in all_cells() if cell.name == name)


def all_cells() -> list[Cell]:
    return [
        Cell(positions=positions, visibility=visibility, data=data)
        for positions, visibility, data in itertools.product(POSITIONS, VISIBILITIES, SOURCES)
    ]


def chosen_cells(filters: Sequence[str]) -> list[Cell]:
    """Those that fit every filter, such as "positions=learned,rotary" or "data=white". ConfigError if none does."""
    cells = all_cells()
    axes = {field.name: {getattr(cell, field.name) for cell in cells} for field in dataclasses.fields(Cell)}
    for text in filters:
        axis, _, values = text.partition("=")
        wanted = set(values.split(","))
        require(axis in axes, "cells", f"have no axis {axis!r}", f"axes are {', '.join(axes)}: positions=learned")
        unknown = sorted(wanted - axes[axis])
        require(not unknown, "cells", f"have no {axis} {unknown}", f"choose from {', '.join(sorted(axes[axis]))}")
        cells = [cell for cell in cells if getattr(cell, axis) in wanted]
    if not cells:
        raise ConfigError("no cell fits all filters", hint="name an axis once, with all its values: data=white")
    return cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replica:
    """One draw of a world, shared by all probes."""

    cell: Cell
    seed: int  # of what the probes draw
    model: Transformer
    sample: Split  # what the probes see
    rest: Split  # the population

    @functools.cached_property
    def subject(self) -> ours.Ours:
        return ours.of(self.model, self.sample, seed=self.seed)

    @functools.cached_property
    def population(self) -> ours.Ours:
        # Masks of its own: those of the first sequences must not be those that the probes saw.
        return ours.of(self.model, self.rest, seed=self.seed + 1)

    @functools.cached_property
    def scores(self) -> Scores:
        return Scores(self.population)

    @functools.cached_property
    def along(self) -> Tensor:
        """The direction along which gradients are measured (length, length), as ``direction`` is once centred."""
        return unit_direction(self.subject, torch.exp(-distances(self.subject) / RADIUS))

    @functools.cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Loss -> score gradients of the population."""
        return {loss: score_gradients(self.population, loss) for loss in ("label", "reconstruction")}

    @functools.cached_property
    def head(self) -> int:
        """Heads of one model are not independent, so one of them counts, drawn at random."""
        return int(stream(self.seed, "head").integers(self.model.config.heads))


def replica(cell: Cell, number: int, *, seed: int) -> Replica:
    """The ``number``-th world of a cell; the same at every call."""
    draws = stream(seed, cell.name, str(number))
    own = int(draws.integers(2**31))
    spec, values = inputs(cell, N + POPULATION, draws)
    config = TransformerConfig(
        d_model=8, layers=1, heads=2, d_mlp=16, positions=cell.positions, causal=cell.visibility == "causal",
        mixer=BlockLocalSettings(window=WINDOW) if cell.visibility == "windows" else AttentionSettings(),
    )  # fmt: skip
    labels = torch.from_numpy(draws.integers(CLASSES, size=len(values)))
    lengths = None
    if cell.visibility == "padded":
        lengths = torch.from_numpy(draws.integers(SHORTEST, LENGTH + 1, size=len(values)))
    whole = Split(inputs=values, labels=labels, lengths=lengths)
    model = make_model(config, spec, "values", seed=own)
    return Replica(cell=cell, seed=own, model=model, sample=whole.head(N), rest=whole.take(slice(N, None)))


def replica_like(world: Replica, number: int) -> Replica:
    """Another model, on the same data."""
    own = int(stream(world.seed, "other model", str(number)).integers(2**31))
    config, spec = world.model.config, world.model.spec
    return dataclasses.replace(world, seed=own, model=make_model(config, spec, "values", seed=own))


def inputs(cell: Cell, n: int, draws: np.random.Generator) -> tuple[Spec, Tensor]:
    """``n`` sequences (n, length, 1) in which no position is nearer to one than to another."""
    grid = (SIDE, SIDE) if cell.visibility == "full" else None
    if cell.data == "white":
        values = torch.from_numpy(draws.standard_normal((n, LENGTH, 1), dtype=np.float32))
        return Spec(length=LENGTH, classes=CLASSES, grid=grid), values
    images, spec, _ = real_images()
    chosen = draws.choice(len(images), n, replace=False)
    order = draws.permutation(LENGTH)  # the same for all images of a replica, drawn anew for every replica
    return dataclasses.replace(spec, grid=grid, classes=CLASSES), images[chosen][:, order]


@functools.cache
def real_images(data_dir: Path | None = None) -> tuple[Tensor, Spec, str]:
    """Small images (n, length, 1), what a model must know of them, and what they are."""
    try:
        data, name = FashionMNIST(side=SIDE).load(data_dir), f"Fashion-MNIST pooled to {SIDE} x {SIDE} pixels"
    except AttnprobeError:  # not on this machine
        task = Textures(side=SIDE, n_train=55_000, n_validation=1, n_test=1)
        data, name = task.load(), f"oriented textures of {SIDE} x {SIDE} pixels"
    return data.train.inputs, data.spec, name
