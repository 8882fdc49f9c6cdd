"""How many units it takes to detect a mean."""

import numpy as np
from scipy import stats

from attnprobe.statistics.intervals import Band


def detection_prices(samples: np.ndarray, band: Band, *, power: float) -> Band:
    """Units needed to see a mean at the band's two-sided level with this power, n = ((z_level + z_power) sigma / mu)^2.

    The quantiles are normal ones: a t test of fewer than 50 has a few percent less power than is named.
    samples (n, ...), band: the interval of their mean. Where that does not exclude zero the estimate is infinite: no
    number of units is known to be enough. The bounds are those of mu / sigma: the band's, whose distance from the
    estimate grows by the error of sigma (delta method: the variance of mean / deviation is
    (1 - d skewness + d^2 (kurtosis - 1) / 4) / n at d = mu / sigma).
    """
    centred, deviation = samples - samples.mean(0), samples.std(0, ddof=1)
    scale = np.where(deviation > 0, deviation, 1.0)
    skewness, kurtosis = ((centred / scale) ** 3).mean(0), ((centred / scale) ** 4).mean(0)
    size = band.estimate / scale
    widening = np.sqrt(np.maximum(1 - size * skewness + size**2 * (kurtosis - 1) / 4, 0.0))
    low, high = (size + (bound / scale - size) * widening for bound in (band.low, band.high))
    nearest = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)  # from zero
    furthest = np.maximum(np.abs(low), np.abs(high))
    seen = (band.low * band.high > 0) & (deviation > 0)
    z = float(stats.norm.isf((1 - band.level) / 2) + stats.norm.ppf(power))
    estimate, least, most = (_price(x, z) for x in (np.where(seen, np.abs(size), 0.0), furthest, nearest * seen))
    return Band(estimate=estimate, low=least, high=most, level=band.level, n=band.n)


def _price(size: np.ndarray, z: float) -> np.ndarray:
    return np.divide(z, size, out=np.full_like(size, np.inf), where=size != 0) ** 2
