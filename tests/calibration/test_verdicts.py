"""Rates, exact intervals, and who is called miscalibrated."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnprobe.calibration.outcomes import Kind, Outcome, covers, p_value
from attnprobe.calibration.verdicts import EVERY_CELL, exact_interval, judge, summaries
from attnprobe.statistics.intervals import Interval
from attnprobe.statistics.multiplicity import holm


def answers(values: np.ndarray, cell: str = "cell", kind: Kind = "p-value") -> list[tuple[str, str, Outcome]]:
    return [(cell, "probe", Outcome(quantity="test", kind=kind, value=float(value))) for value in values]


def uniform(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=n)


def test_a_rate_stands_with_its_exact_interval() -> None:
    row = judge(answers(np.array([0.05] * 11 + [0.06] * 189)))[0]
    assert (row.events, row.replicas, row.rate) == (11, 200, 0.055)
    # Clopper and Pearson by their definition: the rates at which so many, or so few, events have probability .025
    assert stats.binom.sf(10, 200, row.low) == pytest.approx(0.025)
    assert stats.binom.cdf(11, 200, row.high) == pytest.approx(0.025)
    assert row.verdict == "ok"


def test_intervals_of_no_and_of_all_events_are_one_sided() -> None:
    assert exact_interval(0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert exact_interval(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)


@pytest.mark.parametrize(
    ("kind", "rate", "verdict"),
    [
        ("p-value", 0.05, "ok"),
        ("p-value", 0.20, "liberal"),
        ("p-value", 0.00, "conservative"),
        ("interval", 0.95, "ok"),
        ("interval", 0.80, "liberal"),
        ("interval", 1.00, "conservative"),
        ("verdict", 0.00, "ok"),  # no verdict is wrong too seldom
        ("verdict", 0.20, "liberal"),
    ],
)
def test_the_side_says_whether_too_much_or_too_little_is_claimed(kind: Kind, rate: float, verdict: str) -> None:
    events = np.arange(400) < 400 * rate
    values = np.where(events, 0.01, 0.5) if kind == "p-value" else events
    assert judge(answers(values, kind=kind))[0].verdict == verdict


def test_right_p_values_pass_and_halved_ones_do_not() -> None:
    cells = [answers(uniform(200, seed), cell=str(seed)) for seed in range(24)]
    rows = judge(outcome for cell in cells for outcome in cell)
    assert not any(row.miscalibrated for row in rows)
    halved = [(cell, probe, dataclasses.replace(o, value=o.value / 2)) for part in cells for cell, probe, o in part]
    together = next(row for row in judge(halved) if row.cell == EVERY_CELL)
    assert together.verdict == "liberal"
    assert together.rate == pytest.approx(0.1, abs=0.02)


def test_chance_alone_calls_hardly_any_family_miscalibrated() -> None:
    """Rates at the very edge of what is wanted, 20 cells a family: one family in 20 at most."""
    families, cells = 200, 20
    draws = np.random.default_rng(0).binomial(200, 0.07, size=(families, cells))
    tails = np.minimum(1, 2 * stats.binom.sf(draws - 1, 200, 0.07))
    called = np.mean([(holm(family) <= 0.05).any() for family in tails])
    assert called <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / families)
    assert (tails <= 0.05).any(1).mean() > 0.2  # without adjustment most edges would be called out sooner or later


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_keeps_the_order_and_never_lowers(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p - 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert adjusted.min() == pytest.approx(min(1.0, p.min() * len(p)))


def test_refusals_are_counted_apart_and_shown_with_their_reason() -> None:
    found = [("a", "probe", p_value("test", 0.5))] * 3 + [("b", "probe", p_value("test", None))] * 2
    rows = {row.cell: row for row in judge(found)}
    assert (rows["a"].replicas, rows["a"].refused, rows["a"].verdict) == (3, 0, "ok")
    assert (rows["b"].replicas, rows["b"].refused, rows["b"].verdict) == (0, 2, "refused")
    assert rows["b"].reason
    assert (rows[EVERY_CELL].replicas, rows[EVERY_CELL].refused) == (3, 2)


def test_an_interval_covers_what_lies_between_its_bounds() -> None:
    interval = Interval(estimate=0.0, low=-1.0, high=2.0, level=0.95, n=40, unit="")
    assert [covers("x", interval, truth).value for truth in (-1.1, -1.0, 2.0, 2.1)] == [0, 1, 1, 0]
    assert covers("x", dataclasses.replace(interval, low=np.nan), 0.0).value is None


def test_planted_effects_are_no_promise() -> None:
    rows = judge([*answers(uniform(50)), *answers(np.zeros(50), cell="effect 1", kind="power")])
    power = [row for row in rows if row.kind == "power"]
    assert [(row.cell, row.rate, row.nominal, row.verdict) for row in power] == [("effect 1", 1.0, None, "power")]
    assert [summary.together.kind for summary in summaries(rows)] == ["p-value"]
