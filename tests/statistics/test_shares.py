"""Differences of paired shares against their definition, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.statistics.shares import difference


def answers(improved: int, worse: int, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """After and before, of so many units each."""
    counts = (improved, worse, right, wrong)
    return np.repeat([1.0, 0.0, 1.0, 0.0], counts), np.repeat([0.0, 1.0, 1.0, 0.0], counts)


def test_two_units_more_of_which_one_improved_and_one_fell() -> None:
    estimate, low, high = difference(*answers(7, 3, 11, 19), 0.95)
    share, n = np.array([8, 4]) / 42, 42
    spread = np.sqrt((share.sum() - (share[0] - share[1]) ** 2) / n)  # of a multinomial
    assert estimate == pytest.approx(4 / 40)
    assert (low, high) == pytest.approx(share[0] - share[1] + np.array([-1, 1]) * 1.959964 * spread)


@given(st.tuples(*[st.integers(0, 9)] * 4).filter(any), st.sampled_from([0.5, 0.9, 0.99]))
def test_bounds_hold_the_estimate_and_turn_round_with_it(counts: tuple[int, int, int, int], level: float) -> None:
    after, before = answers(*counts)
    estimate, low, high = difference(after, before, level)
    assert low <= estimate <= high
    assert low < high  # nothing seen is not nothing there
    assert difference(before, after, level) == pytest.approx((-estimate, -high, -low))


@pytest.mark.parametrize("n", [30, 40, 100, 300])
@pytest.mark.parametrize(
    ("better", "worse"), [(0.02, 0.0), (0.02, 0.02), (0.05, 0.0), (0.1, 0.02), (0.15, 0.1), (0.3, 0.05), (0.6, 0.05)]
)
def test_differences_are_covered_however_rare(n: int, better: float, worse: float) -> None:
    draws = np.random.default_rng(n).multinomial(n, [better, worse, 0.0, 1 - better - worse], 2000)
    bounds = np.array([difference(*answers(*counts), 0.95)[1:] for counts in draws])
    assert ((bounds[:, 0] <= better - worse) & (better - worse <= bounds[:, 1])).mean() >= 0.92
    assert bounds.min() >= -1
    assert bounds.max() <= 1


def test_bounds_stay_between_minus_one_and_one() -> None:
    assert difference(np.ones(30), np.zeros(30), 0.95)[2] == 1.0
