"""Everything a study shows, from what there is of its runs: rows, tables, figures and a manifest, in one folder."""

import dataclasses
import importlib.metadata
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnprobe import __version__
from attnprobe.files import to_json, write_text
from attnprobe.files.outputs import Kind, check_outputs, check_replaceable, figure_files
from attnprobe.machine import now
from attnprobe.report.studies import pages, rows
from attnprobe.report.studies.drawings import draw
from attnprobe.report.studies.sheet import Contents, Sheet, contents, sheet
from attnprobe.report.studies.trajectories import draw_trajectory
from attnprobe.studies.cells import Cell, Key, cells
from attnprobe.studies.study import Outcome, Study
from attnprobe.training.saved.manifest import git_commit

KIND: Kind = "study"
FILES = ("results.csv", "cells.csv", "table.md", "table.tex", "manifest.json")
OPENING = "attnprobe study render"  # how the first line of a page of ours begins


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A study as far as it is known."""

    name: str
    scale: str
    study: Study  # as it is at this scale
    outcomes: Sequence[Outcome]  # of all runs of the grid
    command: str = OPENING


def check_room(answer: Answer, folder: Path) -> None:
    """ConfigError, before anything is written, if a file that is not ours stands where one of these would."""
    check_outputs([
        ("--to", KIND, [folder / file for file in FILES]),
        ("--to", "figure", [file for name in answer.study.figures for file in figure_files(folder / name)]),
    ])  # fmt: skip


def render(answer: Answer, folder: Path, *, warn: Callable[[str], None]) -> list[Path]:
    """Write all files of the study into ``folder``, in the place of earlier ones of ours; returns them.

    Missing runs are marked, never guessed. warn: is told of damaged records. ConfigError as ``check_room``, and if a
    table or figure makes no sense with this grid.
    """
    check_room(answer, folder)
    study, axes = answer.study, list(answer.study.axes)
    counted = {number: cells(answer.outcomes, number) for number in numbers(study)}
    tables = _tables(study, counted)
    records = [record for found in tables for record in _records(found)]
    shown = {layout.number for layout in study.tables.values()}
    for number, found in counted.items():  # of figures alone
        records += [rows.cell_record("", cell, {}, None) for cell in found.values() if number not in shown]
    figures = draw_all(answer, folder, counted, warn)
    opening = f"{OPENING} {answer.name} --scale {answer.scale}: {coverage(answer)}, {now()}"
    sheets = [sheet(found) for found in tables]
    texts = {
        "results.csv": rows.results(answer.outcomes, axes),
        "cells.csv": rows.cells(records, axes),
        "table.md": pages.markdown(
            sheets, title=study.title, question=study.question, opening=opening, figures=_titles(study, figures)
        ),
        "table.tex": pages.latex(sheets, opening=opening),
        "manifest.json": to_json(manifest(answer)) + "\n",
    }  # fmt: skip
    for name, text in texts.items():
        check_replaceable(folder / name, KIND)
        write_text(folder / name, text)
    return [*(folder / name for name in texts), *figures]


def _titles(study: Study, files: Sequence[Path]) -> dict[str, str]:
    """Of the figures that were drawn."""
    return {study.figures[file.stem].title or file.stem: file.name for file in files if file.suffix == ".png"}


def numbers(study: Study) -> list[str]:
    """All that tables and figures show, and what decides where a boundary is drawn."""
    drawn = [figure for figure in study.figures.values() if figure.kind != "trajectory"]
    found = [layout.number for layout in study.tables.values()] + [figure.number for figure in drawn]
    return list(dict.fromkeys([*found, *(figure.boundary for figure in drawn if figure.boundary)]))


def _tables(study: Study, counted: Mapping[str, Mapping[Key, Cell]]) -> list[Contents]:
    return [contents(study, name, counted[layout.number]) for name, layout in study.tables.items()]


def sheets_of(answer: Answer) -> list[Sheet]:
    """The tables, for a terminal."""
    counted = {layout.number: cells(answer.outcomes, layout.number) for layout in answer.study.tables.values()}
    return [sheet(found) for found in _tables(answer.study, counted)]


def _records(found: Contents) -> list[dict[str, Any]]:
    return [
        rows.cell_record(
            found.name, cell, found.compared, found.published[key].value if key in found.published else None
        )
        for key, cell in found.cells.items()
    ]


def draw_all(
    answer: Answer, folder: Path, counted: Mapping[str, Mapping[Key, Cell]], warn: Callable[[str], None]
) -> list[Path]:
    files: list[Path] = []
    for name, figure in answer.study.figures.items():
        if figure.kind == "trajectory":
            files += draw_trajectory(answer.study, name, answer.outcomes, folder / name, warn=warn)
        else:
            line = {} if figure.boundary is None else boundary(answer.study, name, counted[figure.boundary])
            files += draw(answer.study, name, counted[figure.number], line, folder / name)
    return files


def boundary(study: Study, name: str, cells: Mapping[Key, Cell]) -> dict[str, float]:
    """Choice of a map's vertical axis -> 1 / the median over seeds of its boundary's measure, where x is largest."""
    figure = study.figures[name]
    known = [cell for cell in cells.values() if cell.values and figure.x and figure.lines]
    found: dict[str, float] = {}
    for line in dict.fromkeys(cell.place[str(figure.lines)] for cell in known):
        mine = [cell for cell in known if cell.place[str(figure.lines)] == line]
        furthest = max(mine, key=lambda cell: _as_number(cell.place[str(figure.x)]))
        middle = statistics.median(furthest.values.values())
        found[line] = 1 / middle if middle > 0 else float("inf")
    return found


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def coverage(answer: Answer) -> str:
    done = sum(bool(outcome.numbers) for outcome in answer.outcomes)
    return f"{done} of {len(answer.outcomes)} runs"


def manifest(answer: Answer) -> dict[str, Any]:
    """What was rendered, by whom, from which runs."""
    done = [outcome for outcome in answer.outcomes if outcome.numbers]
    return {
        "made by": OPENING,
        "study": answer.name,
        "scale": answer.scale,
        "command": answer.command,
        "date": now(),
        "commit": git_commit(),
        "versions": {
            "attnprobe": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "matplotlib")},
        },
        "runs asked for": len(answer.outcomes),
        "runs found": len(done),
        "runs": [
            {"place": o.place, "trial": o.trial, "seed": o.seed, "run": o.folder, "pretraining": o.pretraining}
            for o in done
        ],
    }  # fmt: skip
