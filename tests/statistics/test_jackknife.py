"""The jackknife of groups against formulas that are known."""

import numpy as np
import pytest
from scipy import stats

from attnprobe.statistics.jackknife import dealt, grouped_jackknife


def of(x: np.ndarray, groups: np.ndarray, statistic):
    without = np.stack([statistic(x[groups != group]) for group in range(groups.max() + 1)])
    return grouped_jackknife(statistic(x), without, np.bincount(groups), level=0.95)


@pytest.mark.parametrize("n", [7, 20])
def test_of_a_mean_it_is_the_t_interval(n: int) -> None:
    x = np.random.default_rng(0).lognormal(size=(n, 3))
    band = of(x, np.arange(n), lambda x: x.mean(0))
    margin = stats.t.isf(0.025, n - 1) * x.std(0, ddof=1) / np.sqrt(n)
    np.testing.assert_allclose(band.estimate, x.mean(0))
    np.testing.assert_allclose(band.high - band.estimate, margin)
    assert band.n == n


def test_of_a_squared_mean_the_bias_is_gone() -> None:
    """The unbiased estimate of mu^2 is mean^2 - variance / n."""
    x = np.random.default_rng(1).normal(size=11)
    band = of(x, np.arange(11), lambda x: x.mean() ** 2)
    assert float(band.estimate) == pytest.approx(x.mean() ** 2 - x.var(ddof=1) / 11)


def test_groups_of_unequal_size_cover() -> None:
    draws, covered = np.random.default_rng(2), []
    for _ in range(600):
        x = draws.normal(1.0, 1.0, size=53)
        band = of(x, dealt(53), lambda x: x.mean() ** 2)
        covered.append(band.low <= 1.0 <= band.high)
    assert 0.925 <= np.mean(covered) <= 0.975


def test_units_are_dealt_out_evenly() -> None:
    assert np.bincount(dealt(53)).tolist() == [6] * 3 + [5] * 7
    assert dealt(3).tolist() == [0, 1, 2]
