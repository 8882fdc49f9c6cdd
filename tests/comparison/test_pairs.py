"""Paired intervals against their formulas, and how often they hold a difference that is known."""

import math

import numpy as np
import pytest
from scipy import stats

from attnprobe.comparison.differences import differing, flat, known_to_both, unlike
from attnprobe.comparison.pairs import over_seeds, over_sequences


def test_bonett_and_price_by_hand() -> None:
    """13 sequences: 3 only A gets right, 5 only B; two more, one of each, are added."""
    a, b = np.zeros(13), np.zeros(13)
    a[:7], b[3:11], b[11] = 1, 1, 1
    b[3:7] = 1
    only_a, only_b, n, level = 3, 5, 13, 0.9
    [accuracy, loss] = over_sequences(
        {"accuracy": a, "loss": 2 * a}, {"accuracy": b, "loss": 2 * b}, split="test", seed=5, level=level, labels=True
    )
    p, q = (only_b + 1) / (n + 2), (only_a + 1) / (n + 2)
    half = stats.norm.ppf(0.95) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert (accuracy["only_a_right"], accuracy["only_b_right"], accuracy["seed"], accuracy["n"]) == (3, 5, 5, 13)
    assert accuracy["estimate"] == pytest.approx(2 / 13)
    assert [accuracy["low"], accuracy["high"]] == pytest.approx([p - q - half, p - q + half])
    assert loss["quantity"] == "test_loss"
    assert loss["estimate"] == pytest.approx(4 / 13)
    assert loss["low"] < 4 / 13 < loss["high"]


def test_no_change_still_has_an_interval() -> None:
    same = np.ones(40)
    [row] = over_sequences({"accuracy": same}, {"accuracy": same}, split="test", seed=0, level=0.95, labels=True)
    assert row["estimate"] == 0
    assert row["low"] < 0 < row["high"]


def result(seed: int, value: float | None) -> dict:
    numbers = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_loss")
    return {"seed": seed} | dict.fromkeys(numbers, value)


def test_seeds_are_paired_where_both_sides_have_them() -> None:
    a, b = (
        {seed: result(seed, value) for seed, value in side.items()}
        for side in ({3: 0.5, 7: 0.25, 8: 0.1}, {7: 0.5, 3: 0.625})
    )
    rows = {row["quantity"]: row for row in over_seeds(a, b, level=0.95)}
    row = rows["test_accuracy"]
    half = stats.t.ppf(0.975, 1) * np.std([0.125, 0.25], ddof=1) / math.sqrt(2)
    assert (row["n"], row["a"], row["b"], row["estimate"]) == (2, 0.375, 0.5625, 0.1875)
    assert row["high"] - row["estimate"] == pytest.approx(half)
    assert over_seeds(a, {9: result(9, 0.5)}, level=0.95) == []
    assert over_seeds({3: result(3, None)}, b, level=0.95) == []
    [one, *_] = over_seeds({3: result(3, 0.5)}, b, level=0.95)
    assert math.isnan(one["low"])
    assert one["seed"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("n", "only_a", "only_b"), [(200, 0.1, 0.2), (1000, 0.02, 0.05), (60, 0.25, 0.25)])
def test_coverage_over_sequences(n: int, only_a: float, only_b: float) -> None:
    """Of 1500 pairs of checkpoints with a known difference: 95 % intervals hold it in 93 to 98.5 %."""
    generator = np.random.default_rng(n)
    held = 0
    for _ in range(1500):
        u, base = generator.random(n), generator.random(n) < 0.5
        a, b = np.where(u < only_a, 1.0, base), np.where(u < only_a, 0.0, base)
        changed = (u >= only_a) & (u < only_a + only_b)
        a, b = np.where(changed, 0.0, a), np.where(changed, 1.0, b)
        [row] = over_sequences({"accuracy": a}, {"accuracy": b}, split="test", seed=0, level=0.95, labels=True)
        held += row["low"] <= only_b - only_a <= row["high"]
    assert 0.93 <= held / 1500 <= 0.985


@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_over_seeds(seeds: int) -> None:
    """Normal differences of mean 0.05 between arms whose seeds share much: 2000 repetitions, 94 to 96 %."""
    generator, held = np.random.default_rng(seeds), 0
    nothing = result(0, None)
    for _ in range(2000):
        shared = generator.normal(0.5, 0.2, seeds)
        treated = shared + generator.normal(0.05, 0.02, seeds)
        a, b = (
            {s: nothing | {"seed": s, "test_accuracy": v} for s, v in enumerate(side)} for side in (shared, treated)
        )
        [row] = over_seeds(a, b, level=0.95)
        held += row["low"] <= 0.05 <= row["high"]
    assert 0.94 <= held / 2000 <= 0.962


def test_differences_of_tables() -> None:
    one = flat({"a": {"b": 1, "c": [2]}, "d": 3, "e": {}})
    assert one == {"a.b": 1, "a.c": [2], "d": 3, "e": {}}
    other = flat({"a": {"b": 2, "c": [2]}, "f": 4, "e": {}})
    assert unlike(one, other) == ["a.b", "d", "f"]
    rows = differing([one, one | {"d": 5}], [other])
    assert rows == [
        {"key": "a.b", "a": [1], "b": [2]}, {"key": "d", "a": [3, 5], "b": [None]}, {"key": "f", "a": [None], "b": [4]},
    ]  # fmt: skip
    assert [row["key"] for row in known_to_both(rows)] == ["a.b"]
    assert differing([{"x": 1}, {"x": 2}], [{"x": 2}, {"x": 1}]) == []
