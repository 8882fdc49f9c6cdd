"""Tables and figures of the studies we ship fit their grids and the papers' numbers, at every scale."""

import pytest

from attnprobe.report.studies.sheet import contents
from attnprobe.studies.cells import cells, check_covered
from attnprobe.studies.plan.grid import arms
from attnprobe.studies.plan.reading import names, read
from attnprobe.studies.study import Outcome


@pytest.mark.parametrize("name", names())
def test_every_table_and_figure_can_be_filled(name: str) -> None:
    source = read(name)
    for scale in source.study.scales:
        study = source.at(scale)
        outcomes = [Outcome(place=arm.place, seed=0, trial=arm.trial) for arm in arms(study, scale)]
        for table, layout in study.tables.items():
            found = contents(study, table, cells(outcomes, layout.number))
            if layout.published and scale == "paper":
                assert found.published, f"table {table} stands beside no published number"
        for figure, drawn in study.figures.items():
            axes = [axis for axis in (drawn.x, drawn.lines, drawn.panels) if axis is not None]
            if drawn.kind != "trajectory":
                check_covered(study, cells(outcomes, drawn.number).values(), axes, f"figures.{figure}")
