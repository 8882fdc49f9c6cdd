"""Dose-response figures of interventions on the offset profile."""

from pathlib import Path

import numpy as np
import seaborn
from matplotlib.axes import Axes

from attnprobe.probes.interventions.probe import DoseResponse
from attnprobe.report.style import BAND_ALPHA, figure_style, legend_above, panel_grid, save_figure

KINDS = {  # of the upper panels: name, colour, line
    "own": ("own profile", 0, "-"),
    "shuffled": ("control: its values shuffled over offsets", 0, "--"),
    "injected": ("given profile added", 1, "-"),
    "injected shuffled": ("control: its values shuffled over offsets", 1, "--"),
    "clamp": ("given in place of own profile (dose 1)", 2, "-."),
}
DIFFERENCES = {"own - shuffled": (0, "-"), "injected - shuffled": (1, "-")}  # of the lower panels


def draw_dose_response(response: DoseResponse, stem: Path) -> list[Path]:
    """Accuracy and loss against the dose, the dotted line being the model left alone; below, each profile minus the
    mean of its shuffled controls. Bands over sequences, and over draws of controls where these take part.
    """
    quantities = [q for q in ("accuracy", "loss") if response.select(q, "own")]
    with figure_style():
        figure, (upper, lower) = panel_grid(2, len(quantities), panel=(2.9, 2.0), share=False)
        for above, below, quantity in zip(upper, lower, quantities, strict=True):
            for kind, (name, color, line) in KINDS.items():
                _draw(above, response, quantity, kind, color, line, name)
            alone = [row.interval.estimate for row in response.select(quantity, "own") if row.dose == 0]
            if alone:
                above.axhline(alone[0], color="0.5", linestyle=":", linewidth=0.8, zorder=0)
            above.set_ylabel(quantity)
            for kind, (color, line) in DIFFERENCES.items():
                _draw(below, response, f"{quantity}.change", kind, color, line)
            below.axhline(0, color="0.5", linestyle=":", linewidth=0.8, zorder=0)
            below.set_ylabel(f"{quantity}:\nprofile - shuffled")
            below.set_xlabel("dose (-1 removes the own profile)")
            for panel in (above, below):
                panel.axvline(0, color="0.9", linewidth=0.8, zorder=0)
            below.set_xlim(above.get_xlim())
        legend_above(figure, upper[0])
        return save_figure(figure, stem)


def _draw(
    panel: Axes, response: DoseResponse, quantity: str, kind: str, color: int, line: str, name: str | None = None
) -> None:
    rows = response.select(quantity, kind)
    if not rows:
        return
    shade = seaborn.color_palette("colorblind")[color]
    doses = np.array([row.dose for row in rows], dtype=np.float64)
    estimate, low, high = (
        np.array([getattr(row.interval, part) for row in rows]) for part in ("estimate", "low", "high")
    )
    panel.plot(doses, estimate, line, color=shade, label=name, marker="o", markersize=3)
    panel.fill_between(doses, low, high, color=shade, alpha=BAND_ALPHA, linewidth=0)
