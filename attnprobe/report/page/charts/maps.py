"""Maps of values around zero: blue below, red above, in steps that a style sheet can colour."""

import dataclasses
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from attnprobe.report.page.charts.axes import add, canvas, mark, plain
from attnprobe.report.page.parts import Figure, Picture, Table, number

SIZE, EDGE = 170, 18
SHADES = 10  # either side of zero: classes v-10 ... v10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Map:
    title: str
    more: str  # second line of the title
    y: np.ndarray  # (rows,)
    x: np.ndarray  # (columns,)
    values: np.ndarray  # (rows, columns), NaN where there is nothing


def map_figure(maps: Sequence[Map], *, caption: str, axes: tuple[str, str], radius: float | None = None) -> Figure:
    """Maps of the same places, on one scale. axes: names of rows and columns; radius: of a circle around the middle."""
    largest = float(max(np.nanmax(np.abs(m.values), initial=1e-9) for m in maps))
    pictures = [Picture(title=m.title, more=m.more, svg=_drawn(m, largest, axes, radius)) for m in maps]
    rows = [
        [f"{m.title}, {m.more}", number(y, "g"), *(number(float(value), "+.3f") for value in values)]
        for m in maps
        for y, values in zip(m.y, m.values, strict=True)
    ]
    columns = ["map", axes[0], *(f"{axes[1]} {x:g}" if i == 0 else f"{x:g}" for i, x in enumerate(maps[0].x))]
    table = Table(caption=f"Numbers of: {caption}", columns=columns, rows=rows)
    scale = Picture(title="Scale", more="of all maps", svg=_scale(largest))
    return Figure(caption=caption, pictures=[*pictures, scale], table=table, size="small")


def _drawn(m: Map, largest: float, axes: tuple[str, str], radius: float | None) -> Element:
    rows, columns = m.values.shape
    cell = SIZE / max(rows, columns)
    svg = canvas(columns * cell + EDGE, rows * cell + EDGE, f"{m.title}, {m.more}: map by {axes[0]} and {axes[1]}")
    for i, j in np.ndindex(rows, columns):
        value = float(m.values[i, j])
        if np.isfinite(value):
            tip = f"{m.title}, {m.more}\n{axes[0]} {m.y[i]:g}, {axes[1]} {m.x[j]:g}: {value:+.3f}"
            css = shade(value, largest)
            mark(svg, "rect", tip, css=css, x=EDGE + j * cell, y=i * cell, width=cell + 0.3, height=cell + 0.3)
    middle = EDGE + (columns / 2) * cell, rows / 2 * cell
    if radius is not None:
        add(svg, "circle", css="ring", cx=middle[0], cy=middle[1], r=radius * cell)
    for value, place in ((m.x[0], cell / 2), (m.x[-1], (columns - 0.5) * cell)):
        add(svg, "text", css="tick middle", x=EDGE + place, y=rows * cell + 13, text=plain(float(value)))
    for value, place in ((m.y[0], cell / 2), (m.y[-1], (rows - 0.5) * cell)):
        add(svg, "text", css="tick end", x=EDGE - 3, y=place + 4, text=plain(float(value)))
    return svg


def shade(value: float, largest: float) -> str:
    return f"v{round(SHADES * max(-1.0, min(1.0, value / largest)))}"


def _scale(largest: float) -> Element:
    svg = canvas(SIZE + EDGE, 46, f"colours from {-largest:.2f} (blue) over 0 to {largest:.2f} (red)")
    width = SIZE / (2 * SHADES + 1)
    for n in range(-SHADES, SHADES + 1):
        value = largest * n / SHADES
        mark(
            svg, "rect", f"{value:+.3f}", css=f"v{n}", x=EDGE + (n + SHADES) * width, y=6, width=width + 0.3, height=16
        )
    for value, place in ((-largest, EDGE + 8), (0.0, EDGE + SIZE / 2), (largest, EDGE + SIZE - 8)):
        add(svg, "text", css="tick middle", x=place, y=38, text=f"{value:.2f}".replace("-", "\u2212"))
    return svg
