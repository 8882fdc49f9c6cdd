"""Rows of the alignment probe, and what is asked of all of them: level, power and draws."""

import dataclasses
from typing import Literal

import numpy as np

from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Interval
from attnprobe.streams import stream

Null = Literal["positions", "phase", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRow(Measurement):
    direction: str | None = None  # None: about the gradient as a whole
    family: str | None = None  # of single offsets and of controls: adjusted apart from what is asked
    draws: int | None = None  # of the null that the p-value counts: it is never below 1 / (draws + 1)


FIELDS = ("direction", "family", "draws")  # beside those of every measurement


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    level: float
    shuffles: int  # of labels and signs
    seed: int

    def draws(self, *name: str) -> np.random.Generator:
        """Every need's own: what another direction or quantity draws changes nothing here."""
        return stream(self.seed, *name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PricedSettings(Settings):
    power: float  # at which the price of detection is named


def scaled(interval: Interval, by: float, unit: str) -> Interval:
    estimate, low, high = (float(ratio(x, by)) for x in (interval.estimate, interval.low, interval.high))
    return dataclasses.replace(interval, estimate=estimate, low=low, high=high, unit=unit)


def ratio(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """a / b, NaN where b is zero."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
