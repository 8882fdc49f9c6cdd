"""A study's table before it is Markdown or LaTeX: who stands where, beside which published number, and what is bold."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from attnprobe.statistics.intervals import Interval
from attnprobe.studies.cells import Cell, Key, check_covered, label
from attnprobe.studies.comparisons import FEWEST, Comparison, comparisons
from attnprobe.studies.published import Published, published
from attnprobe.studies.study import Layout, Study

MISSING = "missing"
Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One place of a table: a number with its bounds, or a text, and what is said behind it."""

    text: str = ""
    value: float | None = None
    low: float = math.nan
    high: float = math.nan
    signed: bool = False  # a difference, which shows its sign
    note: str = ""
    bold: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """A finished table; the first ``labels`` columns say what a line is."""

    title: str
    head: Sequence[str]
    labels: int
    lines: Sequence[Sequence[Entry]]
    starts: Sequence[bool]  # whether a line begins a new group, as tall as the whats of one row
    notes: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a table can show, by place."""

    name: str
    study: Study
    layout: Layout
    cells: Mapping[Key, Cell]
    compared: Mapping[Key, Comparison]
    published: Mapping[Key, Published]
    pairs: int  # comparisons of the table, with those whose runs are missing


def contents(study: Study, name: str, cells: Mapping[Key, Cell]) -> Contents:
    """cells: of the layout's number. ConfigError if places would fall together, or published rows are not one each."""
    layout, where = study.tables[name], f"tables.{name}"
    check_covered(study, cells.values(), (*layout.rows, *layout.columns), where)
    compared: dict[Key, Comparison] = {}
    if layout.compare is not None and layout.against is not None:
        compared = comparisons(cells, layout.compare, layout.against)
    found = {key: published(study, layout, cell.place, where=where) for key, cell in cells.items()}
    return Contents(
        name=name,
        study=study,
        layout=layout,
        cells=cells,
        compared=compared,
        published={key: number for key, number in found.items() if number is not None},
        pairs=sum(_is_compared(layout, cell, cells) for cell in cells.values()),
    )


def _is_compared(layout: Layout, cell: Cell, cells: Mapping[Key, Cell]) -> bool:
    if layout.compare is None or layout.against is None or cell.place[layout.compare] == layout.against:
        return False
    return tuple((cell.place | {layout.compare: layout.against}).values()) in cells


def sheet(found: Contents) -> Sheet:
    """With columns every row has a line for each thing to say; without them these things are the columns."""
    study, layout, cells, whats = found.study, found.layout, found.cells, _whats(found)
    rows, columns = (_names(study, cells.values(), axes) for axes in (layout.rows, layout.columns))
    keys = {(names(cell, layout.rows), names(cell, layout.columns)): key for key, cell in cells.items()}
    lines, starts = [], []
    for row in rows:
        own = [Entry(text=label(study, axis, n)) for axis, n in zip(layout.rows, row, strict=True)]
        if not layout.columns:
            lines.append([*own, *(entry(found, keys.get((row, ())), what) for what in whats)])
            starts.append(True)
            continue
        for what, title in whats.items():
            entries = [entry(found, keys.get((row, column)), what) for column in columns]
            if what == "ours" or any(e != Entry() for e in entries):
                first = what == "ours"
                lines.append([*(own if first else [Entry() for _ in own]), Entry(text=title), *entries])
                starts.append(first)
    titles = [", ".join(label(study, a, n) for a, n in zip(layout.columns, c, strict=True)) for c in columns]
    return Sheet(
        title=layout.title or study.title,
        head=[*layout.rows, *(["", *titles] if layout.columns else whats.values())],
        labels=len(layout.rows) + bool(layout.columns),
        lines=lines,
        starts=starts,
        notes=_notes(found),
    )


def names(cell: Cell, axes: Iterable[str]) -> Names:
    return tuple(cell.place[axis] for axis in axes)


def _names(study: Study, cells: Iterable[Cell], axes: Sequence[str]) -> list[Names]:
    """In the order of the choices, the first of these axes slowest."""
    order = [{name: place for place, name in enumerate(study.axes[axis])} for axis in axes]
    found = {names(cell, axes) for cell in cells}
    return sorted(found, key=lambda row: [places[name] for places, name in zip(order, row, strict=True)])


def _whats(found: Contents) -> dict[str, str]:
    """What is said of a place -> its title."""
    whats = {"ours": "ours" if found.published else found.layout.number.replace("_", " ")}
    if found.pairs:
        layout = found.layout
        whats["gain"] = f"minus {label(found.study, str(layout.compare), str(layout.against))}"
    if found.published:
        whats |= {"published": "published", "difference": "ours minus published"}
    return whats


def entry(found: Contents, key: Key | None, what: str) -> Entry:
    """Empty where there is nothing to say: the place is no part of the grid, or not of the paper."""
    if key is None:
        return Entry()
    cell, paper = found.cells[key], found.published.get(key)
    if what == "ours":
        return Entry(text=MISSING, note=f"0 of {cell.seeds} seeds") if cell.interval is None else _ours(cell)
    if what == "gain":
        return _gain(found, cell)
    if paper is None:
        return Entry()
    if what == "published":
        return Entry(text=paper.text) if paper.value is None else Entry(value=paper.value)
    if paper.value is None or cell.interval is None:
        return Entry()
    return _entry(cell.interval, minus=paper.value, signed=True)


def _ours(cell: Cell) -> Entry:
    assert cell.interval is not None
    note = f"{len(cell.values)} of {cell.seeds} seeds" if cell.state == "incomplete" else ""
    return dataclasses.replace(_entry(cell.interval), note=note)


def _gain(found: Contents, cell: Cell) -> Entry:
    comparison = found.compared.get(cell.key)
    if comparison is None:
        return Entry(text=MISSING) if _is_compared(found.layout, cell, found.cells) else Entry()
    pairs = len(comparison.differences)
    note = f"{pairs} of {cell.seeds} seeds" if pairs < cell.seeds else ""
    return dataclasses.replace(_entry(comparison.interval, signed=True), note=note, bold=comparison.clear)


def _entry(interval: Interval, *, minus: float = 0.0, signed: bool = False) -> Entry:
    estimate, low, high = (x - minus for x in (interval.estimate, interval.low, interval.high))
    return Entry(value=estimate, low=low, high=high, signed=signed)


def _notes(found: Contents) -> list[str]:
    seeds = sorted({cell.seeds for cell in found.cells.values()})
    count = " or ".join(map(str, seeds))
    notes = [
        f"Mean of {found.layout.number} over seeds with its 95 % interval (Student's t), n = {count} "
        f"seed{'s' if seeds != [1] else ''} where nothing else is said."
    ]
    if found.pairs:
        versus = label(found.study, str(found.layout.compare), str(found.layout.against))
        notes.append(
            f"minus {versus}: differences paired by seed, with their own 95 % interval. Bold: the interval that holds "
            f"for all {found.pairs} comparisons of this table at once (each at 1 - .05 / {found.pairs}) excludes zero, "
            f"with at least {FEWEST} seeds."
        )
    if found.published:
        where = dict.fromkeys(number.where for number in found.published.values())
        notes.append(f"Published: {'; '.join(where)}.")
    return [*notes, *_chosen(found)]


def _chosen(found: Contents) -> list[str]:
    """The best trial of every cell, those that agree together, and what to know of the choice."""
    said: dict[str, list[str]] = {}
    for cell in found.cells.values():
        chosen = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                  for name, value in cell.trial.items()] if cell.values else []  # fmt: skip
        if text := "; ".join([*chosen, *cell.remarks]):
            axes = (*found.layout.rows, *found.layout.columns)
            said.setdefault(text, []).append(", ".join(label(found.study, axis, cell.place[axis]) for axis in axes))
    return [f"{text}: {'; '.join(places)}." for text, places in said.items()]
