"""p-values from permutations, and their adjustment over families of tests."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import stats
from scipy.special import gammaln

from attnprobe.statistics.intervals import Band, weighted_means


def permutation_p_value(
    observed: np.ndarray | float,
    null: np.ndarray,
    *,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> np.ndarray:
    """(1 + how many null values are at least as extreme) / (1 + how many there are): never zero.

    observed (...) and null (replicate, ...); two-sided compares absolute values, so the null must be centred on 0.
    """
    observed, null = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if alternative == "less":
        observed, null = -observed, -null
    elif alternative == "two-sided":
        observed, null = np.abs(observed), np.abs(null)
    # Ties that differ by rounding only count as extreme: the conservative side.
    slack = 1e-12 * np.abs(observed)
    p = (1 + (null >= observed - slack).sum(0)) / (1 + len(null))
    return np.where(np.isnan(observed) | np.isnan(null).any(0), np.nan, p)


def rank_p_value(
    observed: np.ndarray | float, null: np.ndarray, *, centre: Callable[..., np.ndarray] = np.median
) -> np.ndarray:
    """Two-sided, where the centre of the null is not known: distances are those to the centre of all, observed too.

    observed (...), null (replicate, ...). The centre treats all of them alike, so the p-value is exact wherever they
    are exchangeable, whatever their distribution. centre(values, axis=0): the median, or the mean where distances are
    from what a row shows as the difference.
    """
    middle = centre(np.concatenate([np.asarray(observed)[None], null]), axis=0)
    return permutation_p_value(observed - middle, null - middle)


def null_band(null: np.ndarray, *, level: float, n: int) -> Band:
    """Where a statistic lies with the probability ``level`` if the null (replicate, ...) holds, around its mean.

    Plain quantiles: a null is drawn itself, not estimated from the ``n`` units as a bootstrap is. NaN where any
    replicate is.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(null, [tail, 1 - tail], axis=0)
    return Band(estimate=null.mean(0), low=low, high=high, level=level, n=n)


def alpha(level: float) -> float:
    """1 - level without its rounding: p-values up to here are evidence. 1 - .9 itself is a little less than .1, which a
    p-value, a fraction of whole numbers, may be exactly.
    """
    return round(1 - level, 9)


def least_draws(level: float) -> int:
    """With fewer draws of a null the smallest p-value, 1 / (draws + 1), does not get down to 1 - level."""
    return math.ceil(round(1 / (1 - level), 9)) - 1


def log_relabellings(labels: np.ndarray) -> float:
    """Natural logarithm of how many different orders there are of these classes (n,), int64 from 0."""
    return float(gammaln(len(labels) + 1) - gammaln(np.bincount(labels) + 1).sum())


def family_wise_p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p-values adjusted over a family: the chance that any of its statistics is as extreme as this one.

    observed (statistic,) and null (replicate, statistic), centred on 0, whose replicates permute all statistics alike.
    Single-step max-T (Westfall and Young 1993, section 2.3): each statistic in units of its own spread over the
    permutations, the observed one among them, against the largest of the family. The smallest p-value is that of the
    family. A statistic without spread is no evidence: its p-value is 1.
    """
    together = np.concatenate([observed[None], null])
    spread = np.sqrt((together**2).mean(0))
    size = np.divide(np.abs(together), spread, out=np.zeros_like(together), where=spread > 0)
    return permutation_p_value(size[0], np.broadcast_to(size[1:].max(1)[:, None], null.shape), alternative="greater")


def sign_flip_p_value(
    samples: np.ndarray,
    *,
    permutations: int = 999,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    generator: np.random.Generator,
) -> np.ndarray:
    """Test that the mean of ``samples`` (n, ...) is zero; under the null each sequence's sign is a coin toss."""
    n = len(samples)
    signs = generator.integers(0, 2, size=(permutations, n)) * 2.0 - 1.0
    return permutation_p_value(samples.mean(0), weighted_means(signs / n, samples), alternative=alternative)


def false_discovery_rate(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values over all entries; undefined (NaN) entries are no tests and stay NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    adjusted = np.full_like(p, np.nan)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested], method="bh")
    return adjusted
