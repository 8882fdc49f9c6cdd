"""Studies that were rendered: their cells with intervals, beside published numbers."""

import math

from attnprobe.report.page.charts.intervals import Estimate, interval_figure
from attnprobe.report.page.material import Material, ReadStudy, Record
from attnprobe.report.page.parts import Part, Section, Table, Text, interval, number
from attnprobe.report.studies.rows import CELLS

MOST_DRAWN = 24  # cells of one figure


def section(material: Material) -> Section | None:
    if not material.studies:
        return None
    further = [Section(title=f"{study.name} at scale {study.scale}", parts=parts(study)) for study in material.studies]
    short = "; ".join(f"Study {s.name}, {s.scale}: {s.found} of {s.asked} runs" for s in material.studies) + "."
    return Section(title="Studies", further=further, short=short)


def parts(study: ReadStudy) -> list[Part]:
    found: list[Part] = [
        Text(text=f"{study.found} of {study.asked} runs; rendered at {study.date}, commit {study.commit}.")
    ]
    for table in dict.fromkeys((cell["table"], cell["number"]) for cell in study.cells):
        cells = [cell for cell in study.cells if (cell["table"], cell["number"]) == table]
        found.append(table_of(table, cells))
        known = [estimate_of(cell) for cell in cells if value(cell, "estimate") is not None]
        if 0 < len(known) <= MOST_DRAWN:
            name = f"{table[0] or 'figures'}: {table[1]}"
            caption = f"{name}, means over seeds with 95 % intervals."
            found.append(interval_figure(known, title=name, caption=caption, x_label=table[1].replace("_", " ")))
    return found


def table_of(table: tuple[str, str], cells: list[Record]) -> Table:
    axes = [name for name in cells[0] if name not in CELLS]
    rows = []
    for cell in cells:
        bounds = interval(value(cell, "low"), value(cell, "high"))
        gained = interval(value(cell, "simultaneous_low"), value(cell, "simultaneous_high"), "+.3f")
        numbers = [number(value(cell, "estimate")), bounds, cell["n"], number(value(cell, "published"))]
        rows.append(
            [*(cell[axis] for axis in axes), *numbers, number(value(cell, "gain"), "+.3f"), gained, cell["remarks"]]
        )
    columns = [*axes, table[1], "95 % interval", "n", "published", "gain", "interval of all gains at once", "remarks"]
    caption = f"{table[0] or 'Numbers of figures'}: {table[1]}"
    return Table(caption=caption, columns=columns, rows=rows, numeric_from=len(axes))


def estimate_of(cell: Record) -> Estimate:
    bounds = (value(cell, name) for name in ("low", "high"))
    low, high = (math.nan if bound is None else bound for bound in bounds)
    name = ", ".join(str(cell[axis]) for axis in cell if axis not in CELLS)
    estimate = value(cell, "estimate")
    assert estimate is not None
    return Estimate(name=name, estimate=estimate, low=low, high=high, n=int(value(cell, "n") or 0), over="seeds")


def value(cell: Record, name: str) -> float | None:
    """Nothing for a field that is empty or no number."""
    try:
        return float(cell[name]) if cell.get(name) else None
    except ValueError:
        return None
