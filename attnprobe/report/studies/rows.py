"""Results of a study as tidy rows, for spreadsheets and data frames."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attnprobe.studies.cells import Cell, Key
from attnprobe.studies.comparisons import Comparison
from attnprobe.studies.study import Outcome, Settings

RESULTS = ("seed", "trial", "number", "value", "run")
CELLS = (
    "table", "number", "seeds", "n", "estimate", "low", "high", "spread", "trial", "remarks", "published", "difference",
    "against", "gain", "gain_low", "gain_high", "simultaneous_low", "simultaneous_high", "p_value", "holm", "clear",
)  # fmt: skip


def results(outcomes: Sequence[Outcome], axes: Sequence[str]) -> str:
    """One line per run and number; of runs that are missing one without a number."""
    heading = [*(f"{axis}_axis" if axis in RESULTS else axis for axis in axes), *RESULTS]
    lines = []
    for outcome in outcomes:
        place = [outcome.place[axis] for axis in axes]
        trial, folder = written(outcome.trial), "" if outcome.folder is None else str(outcome.folder)
        numbers: Iterable[tuple[str, float | str]] = outcome.numbers.items() or [("", "")]
        lines += [[*place, outcome.seed, trial, name, value, folder] for name, value in numbers]
    return _csv(heading, lines)


def cells(found: Iterable[dict[str, Any]], axes: Sequence[str]) -> str:
    """The records of ``cell_record``."""
    heading = {axis: f"{axis}_axis" if axis in CELLS else axis for axis in axes}
    lines = [[r["place"].get(axis, "") for axis in axes] + [_plain(r.get(name)) for name in CELLS] for r in found]
    return _csv([*heading.values(), *CELLS], lines)


def cell_record(table: str, cell: Cell, compared: Mapping[Key, Comparison], published: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "table": table, "place": cell.place, "number": cell.number, "seeds": cell.seeds, "n": len(cell.values),
        "spread": cell.spread, "trial": written(cell.trial) if cell.values else "",
        "remarks": "; ".join(cell.remarks), "published": published,
    }  # fmt: skip
    if cell.interval is not None:
        record |= {"estimate": cell.interval.estimate, "low": cell.interval.low, "high": cell.interval.high}
        if published is not None:
            record["difference"] = cell.interval.estimate - published
    if (found := compared.get(cell.key)) is not None:
        record |= {
            "against": " ".join(found.against.values()), "gain": found.interval.estimate,
            "gain_low": found.interval.low, "gain_high": found.interval.high,
            "simultaneous_low": found.simultaneous.low, "simultaneous_high": found.simultaneous.high,
            "p_value": found.p_value, "holm": found.adjusted, "clear": found.clear,
        }  # fmt: skip
    return record


def written(trial: Settings) -> str:
    return " ".join(f"{name}={value}" for name, value in trial.items())


def _plain(value: Any) -> Any:
    """Nothing for what is not known."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _csv(heading: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(lines)
    return text.getvalue()
