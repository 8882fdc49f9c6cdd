"""Figures of a study: a number against an axis as lines or bars, over two axes as a map, with intervals over seeds."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from attnprobe.errors import ConfigError
from attnprobe.report.style import DIVERGING, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure
from attnprobe.statistics.intervals import Interval
from attnprobe.studies.cells import Cell, Key, check_covered, label
from attnprobe.studies.comparisons import comparisons
from attnprobe.studies.study import Figure, Study

RATIO = 20  # of the largest to the smallest number of an axis, from which on it is logarithmic
MOST_ABREAST = 4  # panels in a row
WIDTH = 0.7  # of a group of bars or of points that share a place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure's numbers by place, with what is needed to arrange them."""

    study: Study
    figure: Figure
    values: Mapping[Key, Interval]
    places: Sequence[dict[str, str]]  # all of them, also those without a number

    def names(self, axis: str | None) -> list[str | None]:
        """Choices of an axis that stand anywhere; [None] if the figure does not use it."""
        return [None] if axis is None else list(dict.fromkeys(place[axis] for place in self.places))

    @functools.cached_property
    def found(self) -> dict[tuple[str | None, ...], Interval]:
        """By the choices of x, lines and panels."""
        axes = (self.figure.x, self.figure.lines, self.figure.panels)
        known = ((place, self.values.get(tuple(place.values()))) for place in self.places)
        return {
            tuple(None if axis is None else place[axis] for axis in axes): interval
            for place, interval in known
            if interval is not None
        }

    def at(self, *, x: str | None, lines: str | None, panels: str | None) -> Interval | None:
        return self.found.get((x, lines, panels))

    def title(self, axis: str | None, name: str | None) -> str:
        return "" if axis is None or name is None else label(self.study, axis, name)


def draw(study: Study, name: str, cells: Mapping[Key, Cell], boundary: Mapping[str, float], stem: Path) -> list[Path]:
    """Write the figure ``name`` (no trajectory) as PNG and PDF.

    cells: of its number; boundary: choice of the vertical axis -> where on the horizontal one a map's line passes.
    ConfigError if places would fall together.
    """
    figure = study.figures[name]
    used = [axis for axis in (figure.x, figure.lines, figure.panels) if axis is not None]
    check_covered(study, cells.values(), used, f"figures.{name}")
    drawn = Drawn(study=study, figure=figure, **_numbers(figure, cells))
    with figure_style():
        panels = drawn.names(figure.panels)
        size = (3.4, 2.4) if figure.kind != "map" else (4.2, 2.6)
        canvas, axes = arranged(len(panels), size)
        for panel, choice in zip(axes, panels, strict=True):
            panel.set_title(heading(drawn, choice))
            DRAW[figure.kind](drawn, panel, choice)
            if panel in axes[-MOST_ABREAST:]:
                panel.set_xlabel(spaced(figure.x))
            if figure.kind == "map":
                draw_boundary(drawn, panel, boundary)
        for panel in axes[::MOST_ABREAST]:
            panel.set_ylabel(spaced(figure.lines) if figure.kind == "map" else what(drawn))
        if axes[0].get_legend_handles_labels()[1]:
            legend_above(canvas, axes[0], title=spaced(figure.lines) if figure.kind != "map" else None)
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # arranged once, not for each file again
        return save_figure(canvas, stem)


def arranged(count: int, size: tuple[float, float]) -> tuple[Canvas, list[Axes]]:
    """A figure of so many panels, in rows that fit a page."""
    abreast = min(count, MOST_ABREAST)
    canvas, rows = panel_grid(math.ceil(count / abreast), abreast, panel=size)
    axes = [panel for row in rows for panel in row]
    for spare in axes[count:]:
        spare.remove()
    for panel in axes[max(0, count - abreast) : count]:
        panel.tick_params(labelbottom=True)  # also above a place that is left empty
    return canvas, axes[:count]


def _numbers(figure: Figure, cells: Mapping[Key, Cell]) -> dict[str, Any]:
    """Intervals by place; of gains, which stand at the places of the other arms."""
    if figure.against is None:
        values = {key: cell.interval for key, cell in cells.items() if cell.interval is not None}
        return {"values": values, "places": [cell.place for cell in cells.values()]}
    axis = gained(figure)
    found = comparisons(cells, axis, figure.against)
    places = [cell.place for cell in cells.values() if cell.place[axis] != figure.against]
    return {"values": {key: comparison.interval for key, comparison in found.items()}, "places": places}


def gained(figure: Figure) -> str:
    """The axis along which ``against`` is a choice: of a map, whose lines are its vertical axis, that of its panels."""
    axis = figure.panels if figure.kind == "map" else figure.lines
    if axis is None:
        raise ConfigError("a figure's against needs an axis of arms", hint="name it as lines, of a map as panels")
    return axis


def what(drawn: Drawn) -> str:
    """What the vertical axis, or a map's colour, shows."""
    number, against = drawn.figure.number.replace("_", " "), drawn.figure.against
    return number if against is None else f"{number}\nminus {label(drawn.study, gained(drawn.figure), against)}"


def heading(drawn: Drawn, choice: str | None) -> str:
    """Above a panel: the choice it shows, by its axis if it is a number; of a map also what the colours say."""
    figure, text = drawn.figure, drawn.title(drawn.figure.panels, choice)
    if figure.kind == "map":
        number = figure.number.replace("_", " ")
        minus = f" minus {label(drawn.study, gained(figure), figure.against)}" if figure.against else ""
        return f"{number}\n{text}{minus}" if text else number
    return f"{spaced(figure.panels)} {text}" if text[:1].isdigit() else text


def spaced(axis: str | None) -> str:
    return (axis or "").replace("_", " ")


def positions(drawn: Drawn, names: Sequence[str | None]) -> tuple[np.ndarray, bool]:
    """Where the choices of the horizontal axis stand: their numbers, if all of them are, or 0, 1, 2, ...; and which."""
    try:
        numbers = [float(str(name)) for name in names]
    except ValueError:
        return np.arange(len(names), dtype=float), False
    return np.array(numbers), True


def draw_lines(drawn: Drawn, panel: Axes, choice: str | None) -> None:
    """A line per choice of ``lines``, with error bars; where the interval has no bounds a point alone."""
    names, lines = drawn.names(drawn.figure.x), drawn.names(drawn.figure.lines)
    x, numeric = positions(drawn, names)
    order = np.argsort(x)
    logarithmic = numeric and x.min() > 0 and x.max() / x.min() >= RATIO
    colors = checkpoint_colors([str(line) for line in lines])
    for index, line in enumerate(lines):
        found = [drawn.at(x=names[i], lines=line, panels=choice) for i in order]
        values = np.array([(i.estimate, i.low, i.high) if i else (math.nan,) * 3 for i in found], dtype=float)
        bars = np.nan_to_num(np.abs(values[:, 1:].T - values[:, 0]), nan=0.0)
        shift = (index - (len(lines) - 1) / 2) * (0.012 if numeric else 0.05)  # error bars should not cover each other
        place = x[order] * 10**shift if logarithmic else x[order] + shift * max(np.ptp(x), 1)
        text = drawn.title(drawn.figure.lines, line) or "_"
        style: dict[str, Any] = {"color": colors[str(line)], "marker": "o", "markersize": 3, "capsize": 2}
        style["linestyle"] = "-" if numeric else "none"  # nothing lies between names
        panel.errorbar(place, values[:, 0], bars, label=text, linewidth=1, elinewidth=1, **style)
    if logarithmic:
        panel.set_xscale("log")
    _ticks(panel, x, [drawn.title(drawn.figure.x, name) for name in names])
    if drawn.figure.against is not None:
        panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)


def draw_bars(drawn: Drawn, panel: Axes, choice: str | None) -> None:
    """Groups along the horizontal axis, a colour per choice of ``lines``."""
    names, lines = drawn.names(drawn.figure.x), drawn.names(drawn.figure.lines)
    colors, width = checkpoint_colors([str(line) for line in lines]), WIDTH / len(lines)
    for index, line in enumerate(lines):
        text = drawn.title(drawn.figure.lines, line) or "_"
        for group, name in enumerate(names):
            found = drawn.at(x=name, lines=line, panels=choice)
            place = group + (index - (len(lines) - 1) / 2) * width
            if found is None:
                across = panel.get_xaxis_transform()
                panel.text(place, 0.02, "missing", rotation=90, ha="center", va="bottom", fontsize=6, color="0.4",
                           transform=across)  # fmt: skip
                continue
            panel.bar(place, found.estimate, width * 0.95, color=colors[str(line)], label=text)
            text = "_"  # enters the legend once
            if not math.isnan(found.low):
                bounds = [[found.estimate - found.low], [found.high - found.estimate]]
                panel.errorbar(place, found.estimate, bounds, color="0.2", capsize=2, linewidth=1)
    _ticks(panel, np.arange(len(names)), [drawn.title(drawn.figure.x, name) for name in names])
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.axhline(0, color="0.8", linewidth=0.8)


def draw_map(drawn: Drawn, panel: Axes, choice: str | None) -> None:
    """A heat map with the number and its interval in every field; fields without runs are hatched."""
    names, rows = drawn.names(drawn.figure.x), drawn.names(drawn.figure.lines)
    known = [i.estimate for i in drawn.values.values()] or [0.0]
    largest = max(map(abs, known)) or 1.0
    gain = drawn.figure.against is not None
    norm = TwoSlopeNorm(0, -largest, largest) if gain else Normalize(min(known), max(max(known), min(known) + 1e-9))
    colors = seaborn.color_palette(DIVERGING if gain else "viridis", as_cmap=True)
    for column, name in enumerate(names):
        for row, line in enumerate(rows):
            found = drawn.at(x=name, lines=line, panels=choice)
            corner = (column - 0.5, row - 0.5)
            color = None if found is None else colors(norm(found.estimate))
            field: dict[str, Any] = {"facecolor": color} if color else {"facecolor": "white", "hatch": "///"}
            panel.add_patch(Rectangle(corner, 1, 1, edgecolor="white" if color else "0.7", **field))
            dark = color is not None and float(np.dot(color[:3], (0.299, 0.587, 0.114))) < 0.5
            rim = [withStroke(linewidth=2, foreground=color or "white")]  # where a boundary passes behind it
            panel.text(column, row, field_text(found, gain), ha="center", va="center", fontsize=6, zorder=5,
                       color="white" if dark else "black", path_effects=rim)  # fmt: skip
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_ylim(-0.5, len(rows) - 0.5)
    _ticks(panel, np.arange(len(names)), [drawn.title(drawn.figure.x, name) for name in names])
    panel.yaxis.set_major_locator(FixedLocator(range(len(rows))))
    panel.yaxis.set_major_formatter(FuncFormatter(_named([drawn.title(drawn.figure.lines, row) for row in rows])))


def field_text(found: Interval | None, signed: bool) -> str:
    if found is None:
        return "missing"
    sign = "+" if signed else ""
    text = f"{found.estimate:{sign}.2f}"
    return text if math.isnan(found.low) else f"{text}\n[{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


def draw_boundary(drawn: Drawn, panel: Axes, boundary: Mapping[str, float]) -> None:
    """A step line through the map: in each row of fields where the predicted number lies among those of the axis."""
    names, rows = drawn.names(drawn.figure.x), drawn.names(drawn.figure.lines)
    x, numeric = positions(drawn, names)
    order = np.argsort(x)
    if not boundary or not numeric or x.min() <= 0:
        return
    text = f"predicted: {spaced(drawn.figure.boundary)}"
    for row, line in enumerate(rows):
        value = boundary.get(str(line), math.nan)
        if math.isnan(value):
            continue
        place = between(value, x[order]) if value > 0 else -0.5
        place = min(max(place, -0.46), len(names) - 0.54)  # what lies beyond stands at the edge
        panel.plot([place, place], [row - 0.5, row + 0.5], color="black", linewidth=2, label=text)
        said = f"{value:,.0f}" if math.isfinite(value) else "not found"
        side = -1 if place > len(names) / 2 else 1
        panel.annotate(said, (place, row + 0.47), xytext=(3 * side, -1), textcoords="offset points", fontsize=6,
                       ha="left" if side > 0 else "right", va="top")  # fmt: skip
        text = "_"


def between(value: float, numbers: np.ndarray) -> float:
    """The place of a value among increasing numbers that stand at 0, 1, 2, ..., on a logarithmic scale."""
    if len(numbers) == 1 or not math.isfinite(value):
        return 0.0 if len(numbers) == 1 else math.inf
    logs, target = np.log(numbers), math.log(value)
    if target < logs[0]:
        return (target - logs[0]) / (logs[1] - logs[0])
    if target > logs[-1]:
        return len(logs) - 1 + (target - logs[-1]) / (logs[-1] - logs[-2])
    return float(np.interp(target, logs, np.arange(len(logs))))


def _ticks(panel: Axes, places: np.ndarray, names: Sequence[str]) -> None:
    order = np.argsort(places)
    panel.xaxis.set_major_locator(FixedLocator(places[order].tolist()))
    panel.xaxis.set_minor_locator(NullLocator())
    shown = dict(zip(places.tolist(), names, strict=True))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: shown.get(x, "")))
    if sum(map(len, names)) > 40:
        panel.tick_params(axis="x", rotation=30)
        for tick in panel.get_xticklabels():
            tick.set_horizontalalignment("right")


def _named(names: Sequence[str]) -> Any:
    return lambda place, _: names[round(place)] if 0 <= round(place) < len(names) else ""


DRAW = {"lines": draw_lines, "bars": draw_bars, "map": draw_map}
