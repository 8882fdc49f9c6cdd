"""Permutation p-values are uniform under the null, agree with scipy's, and are adjusted as by hand."""

import numpy as np
import pytest
from scipy import stats

from attnprobe.statistics import permutations

DATA_SETS = 1000


def test_permutation_p_values_are_uniform_under_the_null() -> None:
    g = np.random.default_rng(11)
    p = permutations.permutation_p_value(g.normal(size=DATA_SETS), g.normal(size=(199, DATA_SETS)))
    assert p.min() >= 1 / 200
    jitter = p - g.uniform(size=DATA_SETS) / 200  # p lives on a grid of 1/200
    assert stats.kstest(jitter, "uniform").pvalue > 0.01


def test_sign_flip_p_values_are_uniform_under_the_null_and_small_under_an_effect() -> None:
    g = np.random.default_rng(12)
    x = g.laplace(size=(25, DATA_SETS))
    p = permutations.sign_flip_p_value(x, permutations=199, generator=g)
    assert stats.kstest(p - g.uniform(size=DATA_SETS) / 200, "uniform").pvalue > 0.01
    assert np.mean(permutations.sign_flip_p_value(x + 1.5, permutations=199, generator=g) < 0.05) > 0.95


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_sign_flips_agree_with_the_exact_test_of_scipy(alternative: str) -> None:
    g = np.random.default_rng(13)
    x = g.normal(0.4, 1.0, size=10)  # 1024 sign patterns: scipy enumerates them
    exact = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative, vectorized=False
    ).pvalue
    p = permutations.sign_flip_p_value(x, permutations=20_000, alternative=alternative, generator=g)  # type: ignore[arg-type]
    assert float(p) == pytest.approx(exact, abs=0.015)


def test_a_p_value_counts_itself_and_its_ties() -> None:
    null = np.array([0.0, 1.0, 2.0, 3.0])
    assert permutations.permutation_p_value(5.0, null) == pytest.approx(1 / 5)
    assert permutations.permutation_p_value(2.0, null, alternative="greater") == pytest.approx(3 / 5)
    assert permutations.permutation_p_value(2.0, null, alternative="less") == pytest.approx(4 / 5)
    assert permutations.permutation_p_value(-2.0, -null) == pytest.approx(3 / 5)
    assert np.isnan(permutations.permutation_p_value(np.nan, null))


def test_the_band_of_a_null_holds_a_new_draw_as_often_as_its_level_says_however_few_the_units() -> None:
    g = np.random.default_rng(14)
    new, null = g.exponential(size=20_000), g.exponential(size=(199, 20_000))
    band = permutations.null_band(null, level=0.9, n=3)
    assert np.mean((band.low <= new) & (new <= band.high)) == pytest.approx(0.9, abs=0.015)
    assert band.n == 3
    null[0, 0] = np.nan
    assert np.isnan(permutations.null_band(null, level=0.9, n=3).low[0])


def test_false_discovery_rate_by_hand_and_with_gaps() -> None:
    p = np.array([[0.01, np.nan], [0.04, 0.03]])
    assert permutations.false_discovery_rate(p) == pytest.approx(np.array([[0.03, np.nan], [0.04, 0.04]]), nan_ok=True)
    assert np.isnan(permutations.false_discovery_rate([np.nan])).all()
