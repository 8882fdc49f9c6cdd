"""The table of a probe: which records make a line, which columns a person needs, and what waits for --full."""

import dataclasses
from collections.abc import Callable
from typing import Any

from attnprobe.cli.probe.files import Record
from attnprobe.cli.screen.output import print_table, say, stdout_width
from attnprobe.cli.screen.tables import parts

MOST_LINES = 24  # without --full

Line = dict[str, Record]  # heading -> the record that the column shows


def interval(digits: str) -> Callable[[Record], str]:
    """Estimate and interval, each in a format like "+.2f"; "?" where a number is not known."""

    def text(record: Record) -> str:
        estimate, low, high = (number(record[key], digits) for key in ("estimate", "low", "high"))
        return f"{estimate} [{low}, {high}]"

    return text


def estimate(digits: str) -> Callable[[Record], str]:
    return lambda record: number(record["estimate"], digits)


def probability(key: str) -> Callable[[Record], str]:
    """p_value or q_value."""
    return lambda record: number(record[key], ".3f")


def tested(key: str) -> Callable[[Record], str]:
    """``probability`` of rows that have a p-value; of others nothing."""
    return lambda record: "" if record["p_value"] is None else probability(key)(record)


def number(value: float | None, digits: str) -> str:
    return "?" if value is None else format(value, digits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """Shows the record of its line that has these values, if there is one."""

    heading: str
    where: dict[str, Any]
    text: Callable[[Record], str]
    full: bool = False  # only with --full


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Records that agree in ``keys`` make a line; the most important columns come first."""

    title: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    wanted: Callable[[Record], bool] = lambda record: True  # without --full
    line: Callable[[Record], Record] = lambda record: record  # what a record is in the table
    ranked_by: str | None = None  # quantity: of too many lines those where it is largest in size are shown


def show(table: Table, records: list[Record], *, full: bool) -> None:
    """Print what fits, the most important first, and say what --full would add; with ``full`` print everything."""
    records = [table.line(record) for record in records]
    columns = [column for column in table.columns if full or not column.full]
    known = [record for record in records if full or table.wanted(record)]
    columns = [c for c in columns if any(matches(c, record) for record in known)]
    lines = lines_of(table, known)
    kept = lines if full else strongest(table, lines)
    title, keys = heading(table, known)
    cells = [[name(key, place) for key, place in zip(table.keys, at, strict=True) if key in keys] for at, _ in kept]
    rows = [
        [*cell, *(next((c.text(r) for r in mine if matches(c, r)), "") for c in columns)]
        for cell, (_, mine) in zip(cells, kept, strict=True)
    ]
    headings = [*keys, *(column.heading for column in columns)]
    shown = list(range(len(headings))) if full else parts(headings, rows, stdout_width(), len(keys))[0]
    rows = [[row[i] for i in shown] for row in rows]
    print_table(title, [headings[i] for i in shown], rows, numeric_from=len(keys), keys=len(keys))
    everything = len(keys) + sum(any(matches(c, record) for record in records) for c in table.columns)
    if len(kept) < len(lines_of(table, records)) or len(shown) < everything:
        of_rows = f"{len(kept)} of {len(lines_of(table, records))} rows"
        say(f"{of_rows}, {len(shown)} of {everything} columns; --full shows all")


def matches(column: Column, record: Record) -> bool:
    return all(record.get(key) == value for key, value in column.where.items())


def lines_of(table: Table, records: list[Record]) -> list[tuple[tuple[Any, ...], list[Record]]]:
    """Lines in natural order: layers, heads and steps by number, all else by first appearance."""
    lines: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if any(matches(column, record) for column in table.columns):
            lines.setdefault(tuple(record.get(key) for key in table.keys), []).append(record)
    seen = [list(dict.fromkeys(place)) for place in zip(*lines, strict=True)]

    def order(line: tuple[tuple[Any, ...], list[Record]]) -> list[float]:
        return [
            place if isinstance(place, int) else len(lines) + first.index(place)
            for place, first in zip(line[0], seen, strict=True)
        ]

    return sorted(lines.items(), key=order)


def strongest(
    table: Table, lines: list[tuple[tuple[Any, ...], list[Record]]]
) -> list[tuple[tuple[Any, ...], list[Record]]]:
    if len(lines) <= MOST_LINES or table.ranked_by is None:
        return lines

    def size(line: tuple[tuple[Any, ...], list[Record]]) -> float:
        return max((abs(r["estimate"] or 0.0) for r in line[1] if r["quantity"] == table.ranked_by), default=0.0)

    least = sorted(map(size, lines), reverse=True)[MOST_LINES - 1]
    return [line for line in lines if size(line) >= least][:MOST_LINES]


def heading(table: Table, records: list[Record]) -> tuple[str, list[str]]:
    """The title, with what is the same in all lines, and the keys that tell lines apart."""
    several = [
        key for key in table.keys if len({record.get(key) for record in records}) > 1 or key in ("layer", "head")
    ]
    single = [str(records[0][key]) for key in table.keys if key not in several and records and records[0].get(key)]
    return ": ".join([table.title, ", ".join(single)]) if single else table.title, several


def name(key: str, place: Any) -> str:
    """What a line's place is called; a line about all heads has no head."""
    if place is None:
        return "all" if key in ("layer", "head") else ""
    return f"{place:g}" if isinstance(place, float) else str(place)
