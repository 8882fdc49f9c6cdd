"""How large is one mean beside another at most? Upper bounds of ratios of means that hold all together."""

import numpy as np
from scipy import stats

from attnprobe.statistics.intervals import RESAMPLES, Band, drawn_counts, weighted_means


def simultaneous_ratio_bounds(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    generator: np.random.Generator,
) -> Band:
    """|mean of one| / |mean of the other| of paired samples (n, ratio, ...), from 0 to upper bounds which hold with the
    probability ``level`` for all ratios together; each entry of further axes is a question of its own.

    They stand off by the quantile of the largest of all ratios' studentised statistics over bootstrap resamples (Romano
    and Wolf 2005, section 4), so correlated ratios cost little. Both sides count, of which only one harms where the
    sign of a ratio is resolved: a single such ratio is covered with (1 + level) / 2.
    """
    means = numerator.mean(0), denominator.mean(0)
    ratio = np.divide(*means, out=np.zeros_like(means[0]), where=means[1] != 0)
    critical = largest_deviation(numerator - ratio * denominator, level, resamples, generator)
    top, bottom = (np.abs(x.mean(0)) for x in (numerator, denominator))
    ratio = np.divide(top, bottom, out=np.full_like(top, np.inf), where=bottom > 0)
    high = fieller_bounds(numerator, denominator, critical)
    return Band(estimate=ratio, low=np.zeros_like(high), high=high, level=level, n=len(numerator))


def fieller_bounds(numerator: np.ndarray, denominator: np.ndarray, critical: np.ndarray | float) -> np.ndarray:
    """The largest |r| for which mean(numerator - r denominator) is at most ``critical`` standard errors from zero (n,
    ratio, ...) -> (ratio, ...) (Fieller 1954). Infinite where the denominator's own mean is no further from zero.

    Ratios of both signs count: where the numerator's mean may be zero, its sign is not known.
    """
    n, means = len(numerator), (numerator.mean(0), denominator.mean(0))
    centred = numerator - means[0], denominator - means[1]
    a, b, c = (
        means[i] * means[j] - critical**2 / (n * (n - 1)) * (centred[i] * centred[j]).sum(0)
        for i, j in ((1, 1), (0, 1), (0, 0))
    )  # the set is a r^2 - 2 b r + c <= 0
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    return np.divide(np.abs(b) + root, a, out=np.full_like(a, np.inf), where=a > 0)


def largest_deviation(samples: np.ndarray, level: float, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Quantile ``level`` of the largest of all means' deviations, in standard errors, over resamples: (n, mean, ...) to
    (...).

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
    return np.maximum(alone, np.quantile(deviation.max(1), level, axis=0))
