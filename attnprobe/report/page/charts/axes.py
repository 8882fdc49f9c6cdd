"""Scales, ticks and the frame of a chart."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal
from xml.etree.ElementTree import Element, SubElement

Kind = Literal["linear", "steps"]  # steps: 0, then logarithmic
LARGEST = 1e100  # a number that is drawn; of larger ones, which only broken runs leave, a range would be infinite
STYLES = 8  # of lines that can be told apart: classes s0 ... s7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """From numbers to places."""

    low: float
    high: float
    start: float  # place of ``low``
    end: float
    kind: Kind = "linear"
    whole: bool = False  # ticks at whole numbers only

    def __call__(self, value: float) -> float:
        low, high, here = (self._moved(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (here - low) / (high - low)

    def _moved(self, value: float) -> float:
        if self.kind == "linear":
            return value
        return 0.4 * value if value < 1 else 0.4 + math.log10(value)

    def ticks(self, most: int = 5) -> list[float]:
        if self.kind == "linear":
            found = nice(self.low, self.high, most)
            return [tick for tick in found if tick.is_integer()] if self.whole else found
        powers = [10**power for power in range(math.floor(math.log10(max(self.high, 1))) + 1)]
        return [0, *powers] if len(powers) < 5 else [0, *powers[::2]]


def nice(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 round numbers between the two."""
    raw = (high - low) / most
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, math.floor(high / step + 1e-9) + 1)]


def drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST


def limits(values: Sequence[float], *, air: float = 0.06) -> tuple[float, float]:
    """Around all that can be drawn, with some air."""
    known = [v for v in values if drawable(v)] or [0.0]
    low, high = min(known), max(known)
    margin = air * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def canvas(width: float, height: float, label: str) -> Element:
    return Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label})


def add(parent: Element, tag: str, *, text: str = "", css: str = "", **attributes: float | str) -> Element:
    """A child with short numbers; ``x_y`` becomes ``x-y``."""
    given = {name.replace("_", "-"): short(value) for name, value in attributes.items()}
    child = SubElement(parent, tag, given | ({"class": css} if css else {}))
    if text:
        child.text = text
    return child


def mark(parent: Element, tag: str, tip: str, *, css: str = "", **attributes: float | str) -> Element:
    """Something that says its values when it is hovered over."""
    child = add(parent, tag, text="", css=f"mark {css}".strip(), **attributes)
    add(child, "title", text=tip)
    return child


def short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def plain(value: float) -> str:
    """A number on an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("-", "\u2212")


def frame(svg: Element, x: Scale, y: Scale, x_label: str, y_label: str) -> None:
    """Grid, ticks and the names of both axes."""
    for tick in y.ticks():
        add(svg, "line", css="grid", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick))
        add(svg, "text", css="tick end", x=x.start - 6, y=y(tick) + 3.5, text=plain(tick))
    for tick in x.ticks():
        add(svg, "line", css="tickmark", x1=x(tick), x2=x(tick), y1=y.start, y2=y.start + 4)
        add(svg, "text", css="tick middle", x=x(tick), y=y.start + 16, text=plain(tick))
    add(svg, "line", css="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    add(svg, "text", css="label middle", x=(x.start + x.end) / 2, y=y.start + 32, text=x_label)
    if y_label:
        place = f"rotate(-90 12 {short((y.start + y.end) / 2)})"
        add(svg, "text", css="label middle", x=12, y=(y.start + y.end) / 2, transform=place, text=y_label)
