"""Cosine of two mean vectors that are only known from noisy draws."""

import numpy as np

from attnprobe.statistics.intervals import RESAMPLES, Interval, band_from_replicates, drawn_counts


def noise_corrected_cosine_from_products(
    xx: np.ndarray,
    yy: np.ndarray,
    xy: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    generator: np.random.Generator,
) -> Interval:
    """Cosine of the two mean vectors that x (n, d) and y (n, d) are noisy draws of, sequence by sequence.

    The plain cosine of averages is biased: noise inflates both norms, and noise common to x and y the inner product.
    xx, yy, xy: inner products between sequences, each (n, n), since the vectors may be too long to keep.

    Every mean product is taken over pairs of *different* sequences, which is the average over all ways to split the
    set into two halves of the product of the half means: unbiased. The estimate may therefore leave [-1, 1] by noise;
    it is NaN where a squared norm comes out negative, that is where the mean is not resolved at all.
    """
    n = len(xx)
    assert xx.shape == yy.shape == xy.shape == (n, n)
    symmetric = (xy + xy.T) / 2

    def cosine(weights: np.ndarray) -> np.ndarray:
        pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
        between = [between_different(weights, m) / np.where(pairs > 0, pairs, np.nan) for m in (xx, yy, symmetric)]
        resolved = (between[0] > 0) & (between[1] > 0)
        norms = np.sqrt(np.where(resolved, between[0] * between[1], np.nan))
        return between[2] / norms

    estimate = cosine(np.ones((1, n)))[0]
    weights = drawn_counts(n, resamples, generator).astype(np.float64)
    return band_from_replicates(estimate, cosine(weights), level=level, n=n).interval(unit="cosine")


def between_different(weights: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Sum of w_i w_j products_ij over different units i and j: weights (replicate, n), products (n, n) -> (replicate,).

    Noise of a unit multiplies only that of others, so it adds nothing on average.
    """
    return np.einsum("ri,ri->r", weights @ products, weights) - weights**2 @ np.diag(products)
