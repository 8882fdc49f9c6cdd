"""Prices of detection and bounds on ratios, on data whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from attnprobe.statistics.detection import detection_prices
from attnprobe.statistics.intervals import Band, bootstrap
from attnprobe.statistics.ratios import fieller_bounds, simultaneous_ratio_bounds


def prices(samples: np.ndarray, seed: int, power: float = 0.8):
    return detection_prices(samples, bootstrap(samples, generator=np.random.default_rng(seed)), power=power)


@pytest.mark.parametrize(("effect", "power"), [(0.2, 0.8), (0.3, 0.8), (0.4, 0.95)])
def test_a_mean_is_detected_with_the_power_at_its_price(effect: float, power: float) -> None:
    draw = np.random.default_rng(0)
    known = prices(draw.standard_normal((40_000, 1)) + effect, 0, power)
    needed = round(float(known.estimate[0]))
    assert needed == pytest.approx(((stats.norm.isf(0.025) + stats.norm.ppf(power)) / effect) ** 2, rel=0.06)
    samples = draw.standard_normal((4000, needed)) + effect
    seen = (stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05).mean()
    assert seen == pytest.approx(power, abs=0.025)  # a t test of few loses a little: its quantiles are no normal ones


@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_intervals_of_the_price_cover(kind: str) -> None:
    draw, covered, size = np.random.default_rng(1), [], 0.6
    truth = ((stats.norm.isf(0.025) + stats.norm.ppf(0.8)) / size) ** 2
    for repeat in range(200):
        x = draw.standard_normal((60, 1)) if kind == "normal" else draw.exponential(size=(60, 1)) - 1
        found = prices(x + size, repeat)
        covered.append(float(found.low[0]) <= truth <= float(found.high[0]))
    assert 0.91 <= np.mean(covered) <= 0.99


def test_where_zero_is_not_excluded_no_number_is_enough() -> None:
    x = np.random.default_rng(2).standard_normal((50, 400))
    found = prices(x, 0)
    unseen = np.isinf(found.estimate)
    assert 0.9 <= unseen.mean() <= 0.99
    assert np.isinf(found.high[unseen]).all()
    assert np.isfinite(found.low).all()
    assert (found.low <= found.estimate).all()
    assert np.isinf(prices(np.ones((50, 1)), 0).estimate).all()  # without spread nothing is known


def single_bounds(numerator: np.ndarray, denominator: np.ndarray) -> Band:
    """Every ratio (n, ratio) a question of its own."""
    generator = np.random.default_rng(6)
    return simultaneous_ratio_bounds(numerator[:, None], denominator[:, None], generator=generator)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5])
def test_the_bound_of_a_ratio_covers_it(ratio: float) -> None:
    """At least the level; where the ratio is resolved from zero, half of what is missed would be on the other side."""
    draw = np.random.default_rng(3)
    denominator = 0.8 + draw.standard_normal((50, 2000))
    numerator = ratio * 0.8 + 0.1 * (draw.standard_normal((50, 2000)) + denominator - 0.8)
    found = single_bounds(numerator, denominator)
    covered = (found.high >= ratio).mean()
    assert (found.low == 0).all()
    assert covered > 0.99 if ratio == 0 else 0.96 <= covered <= 0.99
    assert np.median(found.high) < 1.4 * ratio + 0.1


def test_beside_a_mean_of_zero_there_is_no_bound() -> None:
    draw = np.random.default_rng(4)
    found = single_bounds(draw.standard_normal((50, 2000)), draw.standard_normal((50, 2000)))
    assert np.isinf(found.high).mean() == pytest.approx(0.95, abs=0.02)


def test_a_bound_holds_all_ratios_of_either_sign_that_are_possible() -> None:
    """By trying ratios; the errors go together, so that the other sign reaches further."""
    draw = np.random.default_rng(5)
    shared = draw.standard_normal((20, 30))
    numerator, denominator = shared + 0.3 * draw.standard_normal((20, 30)), 2.0 + shared
    high, tried, further = fieller_bounds(numerator, denominator, 2.5), np.linspace(-3, 3, 6001), 0
    for i in range(30):
        values = numerator[:, i, None] - tried * denominator[:, i, None]
        possible = tried[np.abs(values.mean(0)) <= 2.5 * stats.sem(values)]
        assert high[i] == pytest.approx(np.abs(possible).max(), abs=2e-3)
        further += np.sign(possible[np.abs(possible).argmax()]) != np.sign(numerator[:, i].mean())
    assert further > 0
