"""q-values over everything that was asked in one breath."""

import numpy as np
import pytest

from attnprobe.probes.rows import with_q_values
from attnprobe.statistics.permutations import false_discovery_rate


def record(p: float | None, **more) -> dict:
    return {"checkpoint": "a", "layer": 0, "head": 0, "quantity": "x", "p_value": p, "direction": None} | more


def test_a_family_is_all_rows_of_a_quantity_of_one_checkpoint() -> None:
    p = np.random.default_rng(0).uniform(size=24)
    places = [(head, name) for head in range(4) for name in ("r=1", "r=2", "r=4", "offset 1", "offset 2", "key")]
    rows = [record(q, head=head, direction=name) for q, (head, name) in zip(p, places, strict=True)]
    found = with_q_values([*rows, record(None), record(0.5, checkpoint="b"), record(0.01, quantity="y", loss="label")])
    assert [r["q_value"] for r in found[:24]] == pytest.approx(list(false_discovery_rate(p)))
    assert {r["family"] for r in found[:24]} == {"x"}
    assert [(r["q_value"], r["family"]) for r in found[24:]] == [(None, None), (0.5, "x"), (0.01, "y, label")]


def test_controls_steps_and_kinds_are_families_of_their_own() -> None:
    rows = [record(0.02), record(0.04, family="x, controls"), record(0.03, step=4), record(0.01, kind="own")]
    found = with_q_values(rows)
    assert [r["q_value"] for r in found] == [0.02, 0.04, 0.03, 0.01]
    assert [r["family"] for r in found] == ["x", "x, controls", "x", "x, own"]


def test_a_name_that_a_record_brings_is_kept() -> None:
    found = with_q_values([record(None, family="blind"), record(0.5, family="blind"), record(0.5)])
    assert [r["family"] for r in found] == ["blind", "blind", "x"]
    assert [r["q_value"] for r in found] == [None, 0.5, 0.5]


def test_doses_are_one_family() -> None:
    found = with_q_values([record(0.02, dose=-1.0), record(0.03, dose=1.0)])
    assert [r["q_value"] for r in found] == pytest.approx([0.03, 0.03])
