"""What a section is made of: texts, tables and figures. The template alone knows how they look."""

import dataclasses
from collections.abc import Sequence
from xml.etree import ElementTree

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric_from: int = 1  # columns from here on hold numbers
    kind: str = "table"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    text: str
    kind: str = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verbatim:
    """Text in lines of its own, folded away."""

    summary: str
    text: str
    kind: str = "verbatim"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One panel of a figure."""

    title: str
    more: str = ""  # a second line of the title
    svg: ElementTree.Element  # with an aria-label; every mark of class "mark" has a <title>, which hovering shows

    def markup(self) -> str:
        """Escaped by the writer of the tree."""
        return ElementTree.tostring(self.svg, encoding="unicode")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels side by side as far as there is room, and the numbers they show."""

    caption: str
    pictures: Sequence[Picture]
    table: Table
    legend: Sequence[tuple[str, int]] = ()  # name and style (see ``charts.axes``) of what all panels share
    size: str = "medium"  # of a panel: small, medium, large (two side by side), wide
    kind: str = "figure"


Part = Table | Text | Verbatim | Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    parts: Sequence[Part] = ()
    further: Sequence["Section"] = ()  # below a heading of their own
    short: str = ""  # one sentence for the head of the page


def number(value: float | None, digits: str = ".3f") -> str:
    """For a cell; empty where nothing is known."""
    return "" if value is None or value != value else format(value, digits)


def interval(low: float | None, high: float | None, digits: str = ".3f") -> str:
    return f"[{number(low, digits)}, {number(high, digits)}]" if number(low) and number(high) else ""
