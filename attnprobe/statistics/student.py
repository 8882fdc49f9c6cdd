"""Means of few, nearly normal numbers, as differences between runs of the same seed are."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from attnprobe.statistics.intervals import Interval


def student_interval(values: Sequence[float], *, level: float = 0.95, unit: str) -> Interval:
    """The mean and its interval by Student's t; a single value has no bounds (NaN)."""
    x = np.asarray(values, dtype=np.float64)
    low = high = math.nan
    if len(x) > 1:
        low, high = stats.ttest_1samp(x, 0.0).confidence_interval(level)
    return Interval(estimate=float(x.mean()), low=float(low), high=float(high), level=level, n=len(x), unit=unit)
