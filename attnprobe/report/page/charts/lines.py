"""Lines with bands: learning curves, trajectories, profiles by offset."""

import dataclasses
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from attnprobe.report.page.charts.axes import STYLES, Kind, Scale, add, canvas, drawable, frame, limits, mark
from attnprobe.report.page.parts import Figure, Picture, Table, interval, number

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 40
MOST_MARKS = 60  # of one line that can be hovered over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    style: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()  # with ``high``: a band
    high: Sequence[float] = ()

    def points(self) -> list[int]:
        """Numbers of those that can be drawn."""
        return [i for i, value in enumerate(self.y) if drawable(value)]

    def bounds(self, i: int) -> tuple[float | None, float | None]:
        known = self.low and drawable(self.low[i]) and drawable(self.high[i])
        return (self.low[i], self.high[i]) if known else (None, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    lines: Sequence[Line]
    y_label: str = ""
    shaded: tuple[float, float] | None = None  # from and to, along x
    zero: bool = False  # draw the line y = 0


def line_figure(
    panels: Sequence[Panel],
    *,
    caption: str,
    x_label: str,
    kind: Kind = "linear",
    share_y: bool = False,
    y_limits: tuple[float, float] | None = None,
    digits: str = ".3f",
    size: str = "medium",
) -> Figure:
    """Panels of lines, one legend for all, and the table of their points. share_y: one scale for all panels."""
    panels = [panel for panel in panels if any(line.points() for line in panel.lines)]
    common = y_limits or (limits([v for panel in panels for v in _values(panel)]) if share_y else None)
    pictures = [
        Picture(title=panel.title, svg=_drawn(panel, common or limits(_values(panel)), x_label, kind, digits))
        for panel in panels
    ]
    rows = [
        [panel.title, line.name, number(line.x[i], "g"), number(line.y[i], digits), interval(*line.bounds(i), digits)]
        for panel in panels
        for line in panel.lines
        for i in line.points()
    ]
    columns = ["panel", "line", x_label, "value", "from, to"]
    legend = {line.name: line.style for panel in panels for line in panel.lines}
    table = Table(caption=f"Numbers of: {caption}", columns=columns, rows=rows, numeric_from=2)
    return Figure(caption=caption, pictures=pictures, table=table, legend=list(legend.items()), size=size)


def _values(panel: Panel) -> list[float]:
    return [v for line in panel.lines for part in (line.y, line.low, line.high) for v in part]


def _drawn(panel: Panel, y_limits: tuple[float, float], x_label: str, kind: Kind, digits: str) -> Element:
    names = ", ".join(dict.fromkeys(line.name for line in panel.lines))
    svg = canvas(WIDTH, HEIGHT, f"{panel.title}: {panel.y_label or 'value'} by {x_label}; lines: {names}")
    known = [line.x[i] for line in panel.lines for i in line.points()]
    first, last = min(known), max(known)
    if first == last:
        first, last = first - 0.5, last + 0.5
    x = Scale(
        low=first, high=last, start=LEFT, end=WIDTH - RIGHT, kind=kind, whole=all(float(v).is_integer() for v in known)
    )
    y = Scale(low=y_limits[0], high=y_limits[1], start=HEIGHT - BOTTOM, end=TOP)
    if panel.shaded is not None:
        left, right = (x(min(max(edge, first), last)) for edge in panel.shaded)
        add(svg, "rect", css="shaded", x=left, y=TOP, width=right - left, height=y.start - TOP)
    frame(svg, x, y, x_label, panel.y_label)
    if panel.zero and y_limits[0] < 0 < y_limits[1]:
        add(svg, "line", css="zero", x1=LEFT, x2=x.end, y1=y(0), y2=y(0))
    for line in panel.lines:
        _draw_line(svg, line, x, y)
    for line in panel.lines:  # on top, so that no line covers what can be hovered over
        _draw_marks(svg, line, x, y, x_label, digits)
    return svg


def _draw_line(svg: Element, line: Line, x: Scale, y: Scale) -> None:
    css, known = f"s{line.style % STYLES}", line.points()

    def path(values: Sequence[float], order: Sequence[int]) -> str:
        return " ".join(f"{x(line.x[i]):.1f},{min(max(y(values[i]), y.end), y.start):.1f}" for i in order)

    banded = [i for i in known if line.low and drawable(line.low[i]) and drawable(line.high[i])]
    if len(banded) > 1:
        around = f"{path(line.high, banded)} {path(line.low, banded[::-1])}"
        add(svg, "polygon", css=f"band {css}", points=around)
    add(svg, "polyline", css=f"line {css}", points=path(line.y, known))


def _draw_marks(svg: Element, line: Line, x: Scale, y: Scale, x_label: str, digits: str) -> None:
    known = line.points()
    every = max(1, -(-len(known) // MOST_MARKS))
    for i in dict.fromkeys([*known[::every], *known[-1:]]):
        low, high = line.bounds(i)
        tip = f"{line.name}\n{x_label} {line.x[i]:g}: {number(line.y[i], digits)} {interval(low, high, digits)}".strip()
        place = min(max(y(line.y[i]), y.end), y.start)
        mark(svg, "circle", tip, css=f"s{line.style % STYLES}", cx=x(line.x[i]), cy=place, r=5)
