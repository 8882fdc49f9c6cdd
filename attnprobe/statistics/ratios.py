"""How large is one mean beside another at most? Upper bounds of ratios of means, for many ratios at once."""

import dataclasses

import numpy as np
from scipy import stats

from attnprobe.statistics.intervals import RESAMPLES, drawn_counts, weighted_means


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioBounds:
    """Of |mean of numerator| / |mean of denominator|; all ``high`` hold together with the probability ``level``."""

    estimate: np.ndarray  # (ratio,) infinite where the denominator's mean is zero
    high: np.ndarray  # (ratio,) infinite where the denominator's mean may be zero
    level: float
    critical: float  # standard errors that the bounds stand off


def simultaneous_ratio_bounds(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    generator: np.random.Generator,
) -> RatioBounds:
    """Bounds from numerator and denominator (n, ratio), which share the sequences of axis 0.

    Fieller's method (Fieller 1954): every ratio rho whose |numerator| - rho |denominator| is no more than q standard
    errors below zero is possible. It is unbounded above where the denominator itself is not q standard errors away
    from zero. q is the quantile of the largest of all ratios' studentised statistics over bootstrap resamples (Romano
    and Wolf 2005, section 4), so correlated ratios cost little.
    """
    n = len(numerator)
    means = numerator.mean(0), denominator.mean(0)
    top, bottom = map(np.abs, means)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.where(bottom > 0, top / bottom, np.inf)
    along = np.where(means[0] < 0, -1.0, 1.0) * numerator, np.where(means[1] < 0, -1.0, 1.0) * denominator
    combined = along[0] - np.where(np.isfinite(estimate), estimate, 0.0) * along[1]
    critical = largest_deviation(combined, level, resamples, generator)
    centred = [x - x.mean(0) for x in along]
    variance = [(centred[i] * centred[j]).sum(0) / (n * (n - 1)) for i, j in ((0, 0), (0, 1), (1, 1))]
    square = critical**2
    a, b, c = (
        bottom**2 - square * variance[2],
        top * bottom - square * variance[1],
        top**2 - square * variance[0],
    )  # a rho^2 - 2 b rho + c = 0 at the ends
    resolved = a > 0
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    high = np.where(resolved, (b + root) / np.where(resolved, a, 1.0), np.inf)
    return RatioBounds(estimate=estimate, high=high, level=level, critical=critical)


def largest_deviation(samples: np.ndarray, level: float, resamples: int, generator: np.random.Generator) -> float:
    """Quantile ``level`` of the largest of all means' deviations (n, mean), in standard errors, over resamples.

    Never below that of a single normal mean. Where a resample has no spread it says nothing.
    """
    n = len(samples)
    centred = samples - samples.mean(0)
    weights = drawn_counts(n, resamples, generator) / n
    shift = weighted_means(weights, centred)
    spread = np.sqrt((weighted_means(weights, centred**2) - shift**2).clip(min=0) / (n - 1))
    largest = np.sqrt((centred**2).mean(0))
    deviation = np.divide(np.abs(shift), spread, out=np.zeros_like(shift), where=spread > 1e-9 * largest)
    alone = float(stats.t.isf(1 - level, n - 1))
    return max(alone, float(np.quantile(deviation.max(1), level)))
