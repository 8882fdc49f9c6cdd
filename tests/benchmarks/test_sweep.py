"""The sweep of RESULTS.md in small: every job done once, at a cost far from what a run takes."""

from pathlib import Path

import pytest

from tests.benchmarks.sweep import FIRST, bare, measure

JOBS = 300


@pytest.mark.slow
def test_scheduling_costs_little(tmp_path: Path) -> None:
    """20 ms per run are asked for. By the clock a busy machine may take longer, which is not the schedule's doing."""
    row = measure("processes", JOBS, tmp_path / "processes")
    assert len(list((tmp_path / "processes").iterdir())) == JOBS + FIRST
    assert row["ms of this process's processor"] < 10, row  # pyright: ignore[reportOperatorIssue]


def test_the_loop_beside_it_does_the_same_work(tmp_path: Path) -> None:
    bare(7, tmp_path / "bare")
    assert len(list((tmp_path / "bare").glob("*/result.json"))) == 7
