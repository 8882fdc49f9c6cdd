"""Means by offset with error bars over sequences, from running sums: nothing is kept per sequence."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from attnprobe.statistics.intervals import Band
from attnprobe.statistics.student import margin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Means by offset. Entries no query can reach are NaN."""

    axes: dict[str, np.ndarray]  # name and values of every axis after (layer, head), such as offset or distance
    score: Band  # (layer, head, *axes) mean centred score of the pairs at that offset, in units of the raw scores
    mass: Band  # (layer, head, *axes) pattern mass a query puts on that offset, on average; sums to 1


class RatioBands:
    """Ratio of two sums over sequences, per layer, head and bin, with the linearised (delta method) error.

    For r = sum x / sum c over m sequences, var r = sum (x - r c)^2 / (sum c)^2 * m / (m - 1), and Student's t with
    m - 1 degrees of freedom (Cochran 1977, section 6.4). Sums of x, x^2 and x c suffice, so memory does not grow with
    the number of sequences.
    """

    def __init__(self, heads: Sequence[int], bins: tuple[int, ...]) -> None:
        """heads: of every layer; the bands are NaN where there is no such head."""
        there = np.arange(max(heads)) < np.array(heads)[:, None]
        start = np.where(there, 0.0, np.nan).reshape(*there.shape, *(1 for _ in bins))
        self.x, self.xx, self.xc = (np.broadcast_to(start, (*there.shape, *bins)).copy() for _ in range(3))
        self.c, self.cc, self.m = (np.zeros((len(heads), 1, *bins)) for _ in range(3))

    def add(self, layer: int, x: Tensor, c: Tensor) -> None:
        """Sums x (sequence, head, *bins) and what they are divided by, c (sequence, *bins), broadcastable."""
        numerators, denominators = x.double().cpu().numpy(), c.double().cpu().numpy()[:, None]
        denominators = np.broadcast_to(denominators, (len(numerators), 1, *numerators.shape[2:]))
        place = (layer, slice(numerators.shape[1]))
        self.x[place] += numerators.sum(0)
        self.xx[place] += np.square(numerators).sum(0)
        self.xc[place] += (numerators * denominators).sum(0)
        self.c[layer] += denominators.sum(0)
        self.cc[layer] += np.square(denominators).sum(0)
        self.m[layer] += (denominators > 0).sum(0)

    def band(self, level: float, n: int) -> Band:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self.c > 0, self.x / self.c, np.nan)
            residual = np.maximum(self.xx - 2 * ratio * self.xc + ratio**2 * self.cc, 0.0)
            error = np.sqrt(residual * self.m / (self.m - 1)) / self.c
        degrees = np.where(self.m > 1, self.m - 1, np.nan)
        half = np.where(self.m > 1, margin(error, degrees, level=level), np.nan)
        return Band(estimate=ratio, low=ratio - half, high=ratio + half, level=level, n=n)
