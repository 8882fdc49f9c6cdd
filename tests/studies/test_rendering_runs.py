"""From runs that were really carried out to tables and figures, by the command."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from attnprobe.cli.app import app
from attnprobe.errors import ConfigError
from attnprobe.studies.work.prices import PRICE, VISIBILITY

MORE = """
[measures.heard]
probe = "alignment"
checkpoint = "pretrained"
quantity = "label.dependent.visibility"
settings = { n = 41 }
[tables.heard]
number = "heard"
rows = ["arm"]
[figures.bars]
kind = "bars"
x = "arm"
[figures.trajectory]
kind = "trajectory"
number = "proximity_bias"
lines = "arm"
"""


def render(request, folder: Path, *more: str) -> dict:
    arguments = [str(folder / "small.toml"), "--out", str(request.store.path), "--json", *more]
    result = CliRunner().invoke(app, ["study", "render", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_render_before_and_after_the_runs(study, run_all, tmp_path: Path) -> None:
    asked = study(MORE, text=with_recording())
    before = render(asked, tmp_path, "--to", str(tmp_path / "before"))
    assert before["runs"] == {"asked for": 6, "found": 0}
    assert "missing (0 of 2 seeds)" in (tmp_path / "before" / "table.md").read_text()
    run_all(asked)
    after = render(asked, tmp_path)
    folder = asked.store.path / "small-tiny"
    assert after["runs"] == {"asked for": 6, "found": 6}
    names = {Path(file).relative_to(folder).name for file in after["files"]}
    assert {"results.csv", "table.tex", "bars.pdf", "trajectory.png"} <= names
    found = {(r["table"], r["arm"]): r for r in read(folder / "cells.csv")}
    outcomes = asked.outcomes()
    for arm in ("scratch", "qk", "all"):
        values = [o.numbers["test_accuracy"] for o in outcomes if o.place["arm"] == arm]
        assert float(found["main", arm]["estimate"]) == pytest.approx(np.mean(values))
    assert found["heard", "scratch"]["n"] == "0"  # it has no pretrained checkpoint
    assert found["heard", "all"]["n"] == "2"
    assert found["main", "all"]["clear"] == "False"  # two seeds


def with_recording() -> str:
    from tests.studies.conftest import STUDY

    return STUDY.replace("settings =", "trajectory_every = 4.0\nsettings =", 1)


def test_visibility_is_the_best_head_s_price_turned_over(study, run_all) -> None:
    asked = study(MORE, text=with_recording())
    run_all(asked)
    [planned] = [run for run in asked.runs if run.arm.place["arm"] == "all" and run.seed == 0]
    from attnprobe import interface
    from attnprobe.studies.work import prices

    path = asked.store.checkpoint(planned.pretraining, "pretrained")
    rows = prices.rows(path, lambda p: interface.open(p, split="train"), n=53)
    known = [price for quantity, price in rows if quantity == PRICE]
    [visibility] = [value for quantity, value in rows if quantity == VISIBILITY]
    assert len(known) == 2
    assert visibility == pytest.approx(1 / min(known) if math.isfinite(min(known)) else 0.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('kind = "map"\nx = "arm"\nagainst = "scratch"', "figures.f.panels is missing beside against"),
        ('kind = "bars"\nx = "arm"\nboundary = "heard"', "boundary can only be drawn where kind is 'map'"),
        ('kind = "map"\nx = "arm"\nboundary = "herd"', "'herd' is neither in result.json nor a measure"),
    ],
)
def test_figures_that_make_no_sense_are_refused(study, lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(MORE + f"[figures.f]\n{lines}\n", text=with_recording())
