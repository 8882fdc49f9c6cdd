"""Shares of right answers and their paired differences: no resampling knows of events that were not seen."""

import numpy as np
from scipy import stats


def are_shares(x: np.ndarray) -> np.ndarray:
    """Which columns of a sample (n, ...) hold both 0 and 1 and nothing else; of boolean samples all."""
    if x.dtype == bool:
        return np.ones(x.shape[1:], dtype=bool)
    return ((x == 0) | (x == 1)).all(0) & (x.min(0) < x.max(0))


def wilson(share: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of a probability of which ``n`` independent draws came true with this share (Wilson 1927)."""
    square = stats.norm.isf((1 - level) / 2) ** 2
    centre = (share + square / (2 * n)) / (1 + square / n)
    margin = np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n)
    return np.minimum(centre - margin, share), np.maximum(centre + margin, share)


def difference(after: np.ndarray, before: np.ndarray, level: float) -> tuple[float, float, float]:
    """Estimate and bounds of the difference of two shares of the same units: after, before (n,) of 0 and 1.

    Two units more, one of which improved and one fell, then estimate +- z * s.e. (Bonett and Price 2012). In 40000
    simulated sets of 30 to 1000 units the nominal 95 % cover 94 to 97 % where many units change, and up to 100 % where
    few do. Half a unit more in each of the four cells (Agresti and Min 2005) covers down to 87 % where few change and
    all in one direction, a bootstrap 74 % at 40 units of which 2 % improve and 2 % fall. The estimate is the plain
    difference; the bounds hold it and lie between -1 and 1.
    """
    n, estimate = len(after), float(np.mean(after) - np.mean(before))
    changed = float(np.sum(after != before))
    centre = n * estimate / (n + 2)
    variance = ((changed + 2) / (n + 2) - centre**2) / (n + 2)
    half = float(stats.norm.isf((1 - level) / 2)) * np.sqrt(variance)
    return estimate, max(-1.0, min(centre - half, estimate)), min(1.0, max(centre + half, estimate))
