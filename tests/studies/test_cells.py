"""Cells: means over seeds, what is missing, and which of several trials counts."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnprobe.errors import ConfigError
from attnprobe.studies.cells import Cell, cells, check_covered
from attnprobe.studies.study import Choice, Layout, Outcome, Scale, Study

RATE = "finetune.optimizer.lr"


def outcome(seed: int, test: float | None, validation: float | None = None, rate: float | None = None) -> Outcome:
    numbers = {} if test is None else {"test_accuracy": test, "validation_accuracy": validation or test}
    return Outcome(place={"arm": "scratch"}, seed=seed, trial={} if rate is None else {RATE: rate}, numbers=numbers)


def only_cell(outcomes: list[Outcome]) -> Cell:
    [found] = cells(outcomes, "test_accuracy").values()
    return found


def test_mean_and_interval_over_seeds_of_one_place() -> None:
    values = [0.5, 0.625, 0.875]
    found = only_cell([outcome(seed, value) for seed, value in enumerate(values)])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.interval is not None
    assert (found.interval.estimate, found.interval.low, found.interval.high) == pytest.approx((2 / 3, low, high))
    assert (found.state, found.seeds, found.spread) == ("complete", 3, pytest.approx(np.std(values, ddof=1)))


def test_missing_runs_are_counted_and_not_invented() -> None:
    found = only_cell([outcome(0, 0.5), outcome(1, None), outcome(2, 0.75)])
    assert (found.state, found.values, found.seeds) == ("incomplete", {0: 0.5, 2: 0.75}, 3)
    nothing = only_cell([outcome(0, None), outcome(1, None)])
    assert (nothing.state, nothing.interval, nothing.seeds) == ("missing", None, 2)


def test_one_seed_has_no_bounds() -> None:
    found = only_cell([outcome(0, 0.5)])
    assert found.interval is not None
    assert found.interval.estimate == 0.5
    assert math.isnan(found.interval.low)
    assert math.isnan(found.spread)


def test_numbers_that_are_not_finite_are_left_out_and_told() -> None:
    found = only_cell([outcome(0, 0.5, 0.5), outcome(1, math.nan, 0.5)])
    assert (found.values, found.state) == ({0: 0.5}, "incomplete")
    assert found.remarks == ("1 of its runs ended without a finite number",)


def test_the_trial_that_is_best_on_validation_data_counts_not_the_best_on_test_data() -> None:
    runs = [outcome(s, 0.9, 0.3, rate=1e-3) for s in range(3)] + [outcome(s, 0.6, 0.7, rate=1e-2) for s in range(3)]
    runs += [outcome(s, 0.8, 0.5, rate=1e-1) for s in range(3)]
    found = only_cell(runs)
    assert (found.trial, found.values, found.remarks) == ({RATE: 1e-2}, {0: 0.6, 1: 0.6, 2: 0.6}, ())


def test_trials_are_compared_on_the_seeds_that_all_of_them_have() -> None:
    # Seed 2 is an easy one, which only the slow rate has: over its own seeds that rate would look better.
    slow = [outcome(0, 0.5, 0.50, rate=1e-3), outcome(1, 0.5, 0.50, rate=1e-3), outcome(2, 0.9, 0.99, rate=1e-3)]
    fast = [outcome(0, 0.6, 0.55, rate=1e-2), outcome(1, 0.6, 0.55, rate=1e-2), outcome(2, None, rate=1e-2)]
    found = only_cell(slow + fast)
    assert (found.trial, found.values, found.state) == ({RATE: 1e-2}, {0: 0.6, 1: 0.6}, "incomplete")
    assert found.remarks == ("chosen on 2 of 3 seeds", f"{RATE}=0.01 is at the edge of what was tried")


def test_trials_without_runs_are_told() -> None:
    runs = [outcome(0, 0.5, rate=1e-3), outcome(0, None, rate=1e-2), outcome(0, 0.4, rate=1e-1)]
    found = only_cell(runs)
    assert found.trial == {RATE: 1e-3}
    assert found.remarks == ("1 of 3 trials have no run yet", f"{RATE}=0.001 is at the edge of what was tried")
    apart = [outcome(0, 0.5, rate=1e-3), outcome(1, None, rate=1e-3), outcome(0, None, rate=1e-2)]
    found = only_cell([*apart, outcome(1, 0.4, rate=1e-2)])
    assert (found.state, found.remarks) == (
        "missing",
        ("no seed has all trials that were begun: nothing is chosen yet",),
    )


def test_trials_of_a_loss_are_chosen_by_the_smaller_one() -> None:
    runs = [
        Outcome(place={"arm": "a"}, seed=0, trial={RATE: r}, numbers={"test_loss": r, "validation_loss": v})
        for r, v in ((1.0, 0.3), (2.0, 0.1), (3.0, 0.2))
    ]
    [found] = cells(runs, "test_loss").values()
    assert (found.trial, found.values) == ({RATE: 2.0}, {0: 2.0})


@given(
    accuracies=st.lists(st.lists(st.none() | st.integers(0, 64), min_size=3, max_size=3), min_size=2, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_neither_the_order_of_outcomes_nor_missing_ones_change_what_is_chosen(
    accuracies: list[list[int | None]], order: Any
) -> None:
    runs = [
        outcome(seed, None if value is None else value / 64 + 1e-6 * rate, rate=float(rate))
        for rate, trial in enumerate(accuracies, 1)
        for seed, value in enumerate(trial)
    ]
    expected = by_hand(accuracies)
    ordered = list(runs)
    order.shuffle(ordered)
    for given_runs in (runs, ordered):
        found = only_cell(given_runs)
        assert (found.trial.get(RATE) if found.values else None) == expected


def by_hand(accuracies: list[list[int | None]]) -> float | None:
    """The rate that is best on the average over common seeds, found by loops."""
    begun = {rate: trial for rate, trial in enumerate(accuracies, 1) if any(value is not None for value in trial)}
    common = [seed for seed in range(3) if begun and all(trial[seed] is not None for trial in begun.values())]
    if not common:
        return None
    scores = {rate: sum(trial[seed] or 0 for seed in common) / 64 / len(common) + 1e-6 * rate
              for rate, trial in begun.items()}  # fmt: skip
    return float(max(scores, key=lambda rate: scores[rate]))


def test_a_table_must_not_put_different_places_together() -> None:
    axes = {
        axis: {name: Choice() for name in names} for axis, names in {"arm": "ab", "task": "xy", "depth": "1"}.items()
    }
    study = Study(
        title="", question="", axes=axes, tables={"t": Layout(rows=("arm",))}, scales={"laptop": Scale()}
    )  # fmt: skip
    runs = [Outcome(place=dict(zip(axes, names, strict=True)), seed=0) for names in itertools.product(*axes.values())]
    found = cells(runs, "test_accuracy").values()
    check_covered(study, found, ("arm", "task"), "table t")
    with pytest.raises(ConfigError, match="table t leaves out the axis task, which has 2 choices"):
        check_covered(study, found, ("arm",), "table t")
