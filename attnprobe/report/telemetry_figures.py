"""Proximity, and gradients along a proximity direction, against the training step, phase after phase."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from attnprobe.report.style import BAND_ALPHA, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure

Record = dict[str, Any]

ROWS = {  # quantity -> what its axis says
    "proximity_bias": "proximity bias\n(sd of scores)",
    "reconstruction.t": "reconstruction\ngradient (t)",
    "label.dependent.t": "label gradient,\nlabels' part (t)",
}


def draw_telemetry(records: Sequence[Record], stem: Path) -> list[Path]:
    """One column per phase, one line per layer and head: the mean over runs, with their range as a band."""
    phases = list(dict.fromkeys(r["phase"] for r in records))
    rows = [quantity for quantity in ROWS if any(r["quantity"] == quantity for r in records)]
    heads = sorted({(r["layer"], r["head"]) for r in records})
    colors = checkpoint_colors([head_name(*head) for head in heads])
    with figure_style():
        figure, panels = panel_grid(len(rows), len(phases), panel=(3.0, 1.7), share=False)
        for panel_row, quantity in zip(panels, rows, strict=True):
            limits = span([r["estimate"] for r in records if r["quantity"] == quantity])
            for panel, phase in zip(panel_row, phases, strict=True):
                mine = [r for r in records if r["quantity"] == quantity and r["phase"] == phase]
                for head in heads:
                    draw_head(panel, [r for r in mine if (r["layer"], r["head"]) == head], head_name(*head), colors)
                panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)
                panel.set_xscale("symlog", linthresh=1)
                panel.set_xlim(left=0)
                panel.set_ylim(*limits)
            panel_row[0].set_ylabel(ROWS[quantity])
        for panel, phase in zip(panels[0], phases, strict=True):
            panel.set_title("self-pretraining" if phase == "pretrained" else "training on labels")
        for panel in panels[-1]:
            panel.set_xlabel("step")
        legend_above(figure, panels[0][0])
        return save_figure(figure, stem)


def draw_head(panel: Axes, records: list[Record], name: str, colors: dict[str, tuple[float, float, float]]) -> None:
    steps = sorted({r["step"] for r in records})
    values = [[r["estimate"] for r in records if r["step"] == s and r["estimate"] is not None] for s in steps]
    means = [float(np.mean(v)) if v else np.nan for v in values]
    panel.plot(steps, means, color=colors[name], label=name, marker="o", markersize=2)
    low, high = ([edge(v) if v else np.nan for v in values] for edge in (min, max))
    panel.fill_between(steps, low, high, color=colors[name], alpha=BAND_ALPHA, linewidth=0)


def span(values: Sequence[float | None]) -> tuple[float, float]:
    """Common limits of a row of panels, with some air."""
    known = [v for v in values if v is not None] or [0.0]
    air = 0.05 * (max(known) - min(known)) + 1e-9
    return min(known) - air, max(known) + air


def head_name(layer: int, head: int) -> str:
    return f"layer {layer}, head {head}"
