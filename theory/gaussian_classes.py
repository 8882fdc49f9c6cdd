"""Two Gaussian classes of slightly different correlation, and both losses' derivatives per sequence: for claim C6."""

import math
from dataclasses import dataclass

import numpy as np

from theory import measurements as measure
from theory.rows import Array
from theory.setting import Setting, contrast_kernel, gaussian_sequences, lag_one, periodic_direction

SMALL = 1e-6  # scale of the readout, which stands for f -> 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Derivatives per sequence along the direction, from autograd.

    as_first, as_second (n,): of the label loss if the label is 0, or 1; labels (n,); reconstruction (n,).
    """

    as_first: Array
    as_second: Array
    labels: Array
    reconstruction: Array

    def label(self, labels: Array | None = None) -> Array:
        """The label loss's derivatives, with the true labels or others."""
        return np.where(self.labels if labels is None else labels, self.as_second, self.as_first)


@dataclass(frozen=True, kw_only=True)
class GaussianClasses:
    """Two Gaussian classes whose lag-1 correlation is r (1 + contrast) and r (1 - contrast)."""

    setting: Setting
    contrast: float = 0.5
    strength: float = 1.0
    bias: float = 0.0

    @property
    def direction(self) -> Array:
        return periodic_direction(contrast_kernel(self.setting.length))

    @property
    def correlation(self) -> float:
        """r: keeps the effect per sequence of order 1 at every size."""
        return self.strength * min(0.25, 1 / math.sqrt(self.setting.length * self.setting.dim))

    def moments(self) -> tuple[Array, Array]:
        """Second moments of both classes."""
        first, second = (
            lag_one(self.setting.length, self.correlation * (1 + sign * self.contrast)) for sign in (1, -1)
        )
        return periodic_direction(first), periodic_direction(second)

    def draw(self, stream: str) -> tuple[Array, Sample]:
        """Inputs (n, L, d), half of them of each class in random order, and their derivatives."""
        rng, dim, length = self.setting.rng(stream), self.setting.dim, self.setting.length
        half, uniform = self.setting.draws // 2, np.zeros((length, length))
        order = rng.permutation(2 * half)
        inputs = np.concatenate([gaussian_sequences(c, dim, half, rng) for c in self.moments()])[order]
        head = measure.BilinearHead(value=np.eye(dim), form=np.eye(dim), scale=SMALL, bias=self.bias)
        found: list[list[Array]] = [[], [], []]
        for chunk in measure.in_chunks(inputs, 2500):
            label = [measure.label_losses(head, chunk, np.full(len(chunk), y)) for y in (0.0, 1.0)]
            for derivatives, losses in zip(
                found, [*label, measure.reconstruction_losses(chunk, self.setting.gain)], strict=True
            ):
                derivatives.append(measure.derivative(losses, uniform, self.direction))
        as_first, as_second, reconstruction = map(np.concatenate, found)
        sample = Sample(
            as_first=as_first / SMALL,
            as_second=as_second / SMALL,
            labels=np.repeat([0.0, 1.0], half)[order],
            reconstruction=reconstruction,
        )
        return inputs, sample
