"""Comparisons paired by seed: formulas, adjustment over a table, and how often they are wrong where nothing differs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnprobe.studies.cells import Cell, cells
from attnprobe.studies.comparisons import Comparison, comparisons
from attnprobe.studies.study import Outcome
from tests.studies.simulated import ARMS, TASKS, table

PAIRS = (len(ARMS) - 1) * len(TASKS)


def compare(runs: dict[str, dict[int, float]]) -> dict[str, Comparison]:
    """Arms -> seed -> accuracy, against the arm "scratch"."""
    found = {
        (arm,): Cell(place={"arm": arm}, number="test_accuracy", values=values, seeds=5) for arm, values in runs.items()
    }
    return {key[0]: comparison for key, comparison in comparisons(found, "arm", "scratch").items()}


def test_differences_are_paired_by_seed_and_adjusted_over_the_table() -> None:
    scratch = {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.7}
    gains = {"a": [0.2, 0.25, 0.22, 0.21], "b": [0.1, -0.1, 0.2, 0.05]}
    found = compare({"scratch": scratch} | {arm: {s: scratch[s] + g[s] for s in scratch} for arm, g in gains.items()})
    p = {}
    for arm, x in gains.items():
        p[arm] = stats.ttest_1samp(x, 0)[1]
        assert found[arm].p_value == pytest.approx(p[arm])
        for interval, level in ((found[arm].interval, 0.95), (found[arm].simultaneous, 0.975)):
            expected = stats.t.interval(level, 3, np.mean(x), stats.sem(x))
            assert (interval.low, interval.high) == pytest.approx(expected)
    assert found["a"].adjusted == pytest.approx(2 * p["a"])
    assert found["b"].adjusted == pytest.approx(p["b"])
    assert (found["a"].clear, found["b"].clear) == (True, False)


def test_only_seeds_that_both_have_are_pairs() -> None:
    found = compare({"scratch": {0: 0.5, 1: 0.25, 3: 0.5}, "a": {3: 0.75, 1: 0.5, 2: 0.9}})
    assert found["a"].differences == {3: 0.25, 1: 0.25}
    assert compare({"scratch": {0: 0.5}, "a": {1: 0.5}}) == {}


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_are_never_clear(seeds: int) -> None:
    found = compare({"scratch": dict.fromkeys(range(seeds), 0.1), "a": {s: 0.9 + 1e-9 * s for s in range(seeds)}})
    assert not found["a"].clear


def test_equal_differences_say_nothing_of_their_spread() -> None:
    """Accuracies are counts: three of them can agree to the last digit, and an interval of no width would be absurd."""
    found = compare({"scratch": dict.fromkeys(range(3), 0.5), "a": dict.fromkeys(range(3), 0.75)})
    assert math.isnan(found["a"].simultaneous.low)
    assert math.isnan(found["a"].p_value)
    assert not found["a"].clear


def test_comparisons_whose_runs_are_missing_count() -> None:
    """A gain that is clear alone is not yet so in a table of a hundred."""
    runs = {"scratch": {0: 0.5, 1: 0.6, 2: 0.4}, "a": {0: 0.70, 1: 0.84, 2: 0.62}}
    assert compare(runs)["a"].clear
    whole = compare(runs | {f"not yet {n}": {} for n in range(99)})
    assert list(whole) == ["a"]
    assert whole["a"].adjusted == pytest.approx(100 * compare(runs)["a"].p_value)
    assert not whole["a"].clear


@given(st.lists(st.lists(st.integers(-20, 20), min_size=3, max_size=6), min_size=1, max_size=6))
def test_what_is_clear_is_clear_by_holm_too(gains: list[list[int]]) -> None:
    seeds = range(6)
    runs = {str(n): {s: g / 100 + 0.5 for s, g in enumerate(arm)} for n, arm in enumerate(gains)}
    for found in compare({"scratch": dict.fromkeys(seeds, 0.5)} | runs).values():
        assert not found.clear or found.adjusted <= 0.05
        assert not found.clear or found.interval.low * found.interval.high > 0


def rates(tables: int, seeds: int, kind: str, *, gain: float = 0.0, shared: float = 1.0) -> tuple[float, float]:
    """Share of tables with any comparison off the truth, and share of single intervals that hold it."""
    generator = np.random.default_rng(0)
    missed, held = 0, 0
    for _ in range(tables):
        found = comparisons(
            cells(table(seeds, kind, generator, gain=gain, shared=shared), "test_accuracy"), "arm", "scratch"
        )
        assert len(found) == PAIRS
        missed += any(not c.simultaneous.low <= gain <= c.simultaneous.high for c in found.values())
        held += sum(c.interval.low <= gain <= c.interval.high for c in found.values())
    return missed / tables, held / tables / PAIRS


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_table_where_nothing_differs_has_a_bold_cell_in_at_most_one_of_twenty(seeds: int, kind: str) -> None:
    """Simultaneous intervals miss zero exactly where a cell is bold; by 2000 tables the record has exact rates."""
    tables = 150
    bold, coverage = rates(tables, seeds, kind)
    assert stats.binomtest(round(bold * tables), tables, 0.05, alternative="greater").pvalue > 0.001
    assert coverage > 0.93


def test_pairing_takes_off_what_seeds_share() -> None:
    """With seed effects five times the noise: paired intervals cover, and see a gain that unpaired ones would not."""
    generator = np.random.default_rng(1)
    runs = table(5, "normal", generator, gain=0.15, shared=5.0)
    found = comparisons(cells(runs, "test_accuracy"), "arm", "scratch")
    paired = np.mean([c.interval.high - c.interval.low for c in found.values()])
    alone = np.mean([c.interval.high - c.interval.low for c in cells(runs, "test_accuracy").values() if c.interval])
    assert paired < alone / 2
    missed, coverage = rates(100, 5, "normal", gain=0.15, shared=5.0)
    assert missed <= 0.15
    assert 0.93 < coverage < 0.97


def test_axes_that_are_not_compared_stay_apart() -> None:
    runs = [
        Outcome(place={"arm": arm, "task": task}, seed=seed, numbers={"test_accuracy": base + 0.01 * seed + step})
        for task, base, step in (("w", 0.1, 0.0), ("x", 0.5, 0.3))
        for arm, step in (("scratch", 0.0), ("a", step))
        for seed in range(3)
    ]
    found = comparisons(cells(runs, "test_accuracy"), "arm", "scratch")
    estimates = {key: comparison.interval.estimate for key, comparison in found.items()}
    assert estimates == {("a", "w"): pytest.approx(0.0), ("a", "x"): pytest.approx(0.3)}
    assert {c.against["task"] for c in found.values()} == {"w", "x"}
