"""Estimates with their intervals, one below the other, each with the single values it rests on."""

import dataclasses
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from attnprobe.report.page.charts.axes import STYLES, Scale, add, canvas, drawable, limits, mark, plain
from attnprobe.report.page.parts import Figure, Picture, Table, interval, number

WIDTH, ROW, TOP, BOTTOM, SIDE = 520, 44, 6, 40, 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    name: str
    estimate: float
    low: float  # NaN: not known
    high: float
    n: int
    over: str  # what n counts
    singles: Sequence[tuple[str, float]] = ()  # name and value of each of them


def interval_figure(
    estimates: Sequence[Estimate], *, title: str, caption: str, x_label: str, reference: tuple[str, float] | None = None
) -> Figure:
    """reference: a value to compare with, and what it is called. What cannot be drawn is left out."""
    estimates = [e for e in estimates if drawable(e.estimate)]
    estimates = [dataclasses.replace(e, singles=[s for s in e.singles if drawable(s[1])]) for e in estimates]
    height = TOP + ROW * len(estimates) + BOTTOM
    svg = canvas(WIDTH, height, f"{title}: {x_label} of {', '.join(e.name for e in estimates)}, with intervals")
    values = [v for e in estimates for v in (e.estimate, e.low, e.high, *(value for _, value in e.singles))]
    low, high = limits([*values, *([reference[1]] if reference else [])])
    x = Scale(low=low, high=high, start=SIDE, end=WIDTH - SIDE)
    bottom = height - BOTTOM
    for tick in x.ticks(7):
        add(svg, "line", css="grid", x1=x(tick), x2=x(tick), y1=TOP, y2=bottom)
        add(svg, "text", css="tick middle", x=x(tick), y=bottom + 16, text=plain(tick))
    add(svg, "line", css="axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)
    add(svg, "text", css="label middle", x=WIDTH / 2, y=bottom + 32, text=x_label)
    if reference is not None:
        tip = f"{reference[0]}: {number(reference[1])}"
        mark(svg, "line", tip, css="zero", x1=x(reference[1]), x2=x(reference[1]), y1=TOP, y2=bottom)
    for row, each in enumerate(estimates):
        _draw(svg, each, row % STYLES, x, TOP + ROW * row)
    rows = [[e.name, number(e.estimate), interval(e.low, e.high), f"{e.n} {e.over}"] for e in estimates]
    rows += [[f"{e.name}, {name}", number(value), "", ""] for e in estimates for name, value in e.singles]
    table = Table(caption=f"Numbers of: {caption}", columns=["", x_label, "interval", "n"], rows=rows)
    return Figure(caption=caption, pictures=[Picture(title=title, svg=svg)], table=table, size="wide")


def _draw(svg: Element, each: Estimate, style: int, x: Scale, top: float) -> None:
    css, y = f"s{style}", top + 30
    add(svg, "text", css="name", x=x.start, y=top + 15, text=each.name)
    tip = f"{each.name}\n{number(each.estimate)} {interval(each.low, each.high)}, {each.n} {each.over}"
    if drawable(each.low) and drawable(each.high):
        add(svg, "line", css=f"interval {css}", x1=x(each.low), x2=x(each.high), y1=y, y2=y)
    for name, value in each.singles:
        mark(svg, "circle", f"{each.name}, {name}\n{number(value)}", css=f"single {css}", cx=x(value), cy=y, r=4)
    mark(svg, "circle", tip, css=f"estimate {css}", cx=x(each.estimate), cy=y, r=6)
