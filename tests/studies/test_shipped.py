"""The studies that come with attnprobe, at every one of their scales."""

import pytest

from attnprobe.report.studies.render import Answer, sheets_of
from attnprobe.studies.cells import cells, check_covered
from attnprobe.studies.plan.meaning import config_of
from attnprobe.studies.plan.reading import names, read
from attnprobe.studies.published import published
from attnprobe.studies.request import request
from attnprobe.studies.study import Outcome

SCALES = [(name, scale) for name in names() for scale in read(name).study.scales]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_run_can_be_built(name: str, scale: str, tmp_path) -> None:
    asked = request(name, scale=scale, out=tmp_path / "none")
    assert len(asked.arms) > 1
    assert asked.study.question.endswith("?")
    for arm in asked.arms:
        config_of(arm.table)
    assert not (tmp_path / "none").exists()
    distinct = {planned.key for planned in asked.runs}
    assert len(distinct) == len(asked.runs), "no two arms are the same"


@pytest.mark.parametrize("name", [name for name in names() if "paper" in read(name).study.scales])
def test_every_published_number_is_one_row(name: str) -> None:
    """Of every table that says so, at the papers' scale: ConfigError unless exactly one row fits."""
    source = read(name)
    asked = request(name, scale="paper")
    for where, layout in source.study.tables.items():
        found = [published(asked.study, layout, arm.place, where=where) for arm in asked.arms]
        if layout.published:
            assert any(found), "the template finds something"


REPRODUCED = {
    "coser-table-1": 10, "coser-table-2": 21, "coser-table-3": 15, "qk-transfer": 6, "depth-and-source": 18,
    "amos-table-1": 52, "amos-table-2": 46, "amos-table-3": 12, "amos-table-3-bidmc": 12, "amos-table-7": 32,
    "amos-table-8-image": 8, "amos-table-8-text": 8, "amos-table-9": 20,
}  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), REPRODUCED.items())
def test_no_published_number_is_left_out(name: str, rows: int) -> None:
    """So many rows of published.csv stand beside the first table; each of them once."""
    asked = request(name, scale="paper")
    where, layout = next(iter(asked.study.tables.items()))
    found = [published(asked.study, layout, arm.place, where=where) for arm in asked.arms]
    assert len([row for row in found if row is not None]) == rows


@pytest.mark.parametrize("name", names())
def test_the_smallest_scale_comes_first(name: str) -> None:
    scales = list(read(name).study.scales)
    assert scales[0] == "smoke" or "smoke" not in scales


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_tables_and_figures_fit_the_grid(name: str, scale: str) -> None:
    """With made-up numbers in every place: no axis is left out, and lines have numbers below them."""
    asked = request(name, scale=scale, seeds=[0, 1])
    numbers = {layout.number for layout in asked.study.tables.values()}
    numbers |= {"validation_accuracy", "test_accuracy", *asked.study.measures}
    outcomes = [
        Outcome(place=arm.place, trial=arm.trial, seed=seed, numbers=dict.fromkeys(numbers, 0.5 + 0.01 * seed))
        for seed in (0, 1)
        for arm in asked.arms
    ]
    answer = Answer(name=name, scale=scale, study=asked.study, outcomes=outcomes)
    assert len(sheets_of(answer)) == len(asked.study.tables)
    for where, figure in asked.study.figures.items():
        if figure.kind != "trajectory":
            found = cells(outcomes, figure.number)
            axes = [axis for axis in (figure.x, figure.lines, figure.panels) if axis]
            check_covered(asked.study, found.values(), axes, where)
        if figure.kind in ("lines", "map"):
            assert all(float(place[figure.x]) >= 0 for place in (arm.place for arm in asked.arms))
