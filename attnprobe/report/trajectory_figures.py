"""Proximity, and gradients along near against far keys, against the training step, phase after phase."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from attnprobe.report.style import BAND_ALPHA, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure
from attnprobe.training.saved.listing import natural

Record = dict[str, Any]

ROWS = {  # quantity -> what its axis says
    "proximity_bias": "proximity bias\n(sd of scores)",
    "reconstruction.t": "reconstruction\ngradient (t)",
    "label.dependent.t": "label gradient,\nlabels' part (t)",
}
PHASES = {"pretrained": "self-pretraining", "finetuned": "training on labels"}  # and what they are called
TITLES = PHASES | {None: "training"}  # of models of others


def draw_trajectory(records: Sequence[Record], stem: Path) -> list[Path]:
    """One column per phase, one line per run, layer and head.

    Colours tell the heads of one run apart, or several runs: heads have no order that runs share. The lines of one run
    have their intervals around them where there are any.
    """
    phases = list(dict.fromkeys(r["phase"] for r in records))
    rows = [quantity for quantity in ROWS if any(r["quantity"] == quantity for r in records)]
    several = len({r["run"] for r in records}) > 1
    name: Callable[[Record], str] = (lambda r: r["run"]) if several else (lambda r: head_name(r["layer"], r["head"]))
    lines = sorted({(r["run"], r["layer"], r["head"]) for r in records}, key=lambda line: (natural(line[0]), *line[1:]))
    colors = checkpoint_colors(list(dict.fromkeys(run if several else head_name(*head) for run, *head in lines)))
    with figure_style():
        figure, panels = panel_grid(len(rows), len(phases), panel=(3.0, 1.7), share=False)
        for panel_row, quantity in zip(panels, rows, strict=True):
            drawn = ("estimate",) if several else ("estimate", "low", "high")
            limits = span([r.get(key) for r in records if r["quantity"] == quantity for key in drawn])
            for panel, phase in zip(panel_row, phases, strict=True):
                mine = [r for r in records if r["quantity"] == quantity and r["phase"] == phase]
                for line in lines:
                    points = [r for r in mine if (r["run"], r["layer"], r["head"]) == line]
                    if points:
                        draw_line(panel, points, name(points[0]), colors, band=not several)
                panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)
                scale_steps(panel, max((r["step"] for r in mine), default=1))
                panel.set_ylim(*limits)
            panel_row[0].set_ylabel(ROWS[quantity])
        for panel, phase in zip(panels[0], phases, strict=True):
            panel.set_title(TITLES[phase])
        for panel in panels[-1]:
            panel.set_xlabel("step")
        legend_above(figure, panels[0][0], title="every line is a head of a run" if several else "every line is a head")
        return save_figure(figure, stem)


def draw_line(
    panel: Axes, records: list[Record], name: str, colors: dict[str, tuple[float, float, float]], *, band: bool
) -> None:
    """One head of one run; a name enters the legend once."""
    records = sorted(records, key=lambda r: r["step"])
    steps = [r["step"] for r in records]
    columns = ([np.nan if r.get(key) is None else r[key] for r in records] for key in ("estimate", "low", "high"))
    estimate, low, high = columns
    known = panel.get_legend_handles_labels()[1]
    label = "_" if name in known else name
    panel.plot(steps, estimate, color=colors[name], label=label, marker="o", markersize=2, linewidth=1)
    if band:
        panel.fill_between(steps, low, high, color=colors[name], alpha=BAND_ALPHA, linewidth=0)


def scale_steps(panel: Axes, last: int) -> None:
    """Step 0, then a logarithmic scale; ticks in plain numbers, 1, 2, 5, 10, ... or, for long runs, 1, 10, 100, ..."""
    ticks = [1, 2, 5, 10, 20, 50, 100, 200] if last <= 200 else [10**power for power in range(len(str(last)))]
    panel.set_xscale("symlog", linthresh=1, linscale=0.4)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(FixedLocator([0, *(tick for tick in ticks if tick <= max(last, 1))]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    panel.xaxis.set_minor_locator(NullLocator())


def span(values: Sequence[float | None]) -> tuple[float, float]:
    """Common limits of a row of panels, with some air."""
    known = [v for v in values if v is not None] or [0.0]
    air = 0.05 * (max(known) - min(known)) + 1e-9
    return min(known) - air, max(known) + air


def head_name(layer: int, head: int) -> str:
    return f"layer {layer}, head {head}"
