"""Rows of the alignment probe, and what is asked of all of them: level, power and draws."""

import dataclasses
from typing import Literal

import numpy as np
from scipy import stats

from attnprobe.errors import ConfigError
from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Interval
from attnprobe.streams import stream

Null = Literal["positions", "phase", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRow(Measurement):
    direction: str | None = None  # None: about the gradient as a whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    level: float
    shuffles: int  # of labels and signs
    seed: int

    def draws(self, *name: str) -> np.random.Generator:
        """Every need's own: what another direction or quantity draws changes nothing here."""
        return stream(self.seed, *name)

    @property
    def z(self) -> float:
        """Standard errors at which a direction counts as detected."""
        return float(stats.norm.isf((1 - self.level) / 2))


def check_draws(count: int, level: float, what: str) -> None:
    """Raise ConfigError if the smallest p-value that ``count`` draws can give, 1 / (count + 1), is above 1 - level."""
    least = round(1 / (1 - level), 9)
    if count + 1 < least:
        raise ConfigError(
            f"{what} is {count}: no p-value could be as small as {1 - level:.3g}",
            hint=f"take at least {int(np.ceil(least)) - 1}, or a lower level",
        )


def scaled(interval: Interval, by: float, unit: str) -> Interval:
    estimate, low, high = (float(ratio(x, by)) for x in (interval.estimate, interval.low, interval.high))
    return dataclasses.replace(interval, estimate=estimate, low=low, high=high, unit=unit)


def ratio(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """a / b, NaN where b is zero."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
