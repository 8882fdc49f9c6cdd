"""Dose-response figures of interventions on the offset profile."""

from pathlib import Path

import numpy as np
import seaborn

from attnprobe.probes.interventions.probe import DoseResponse
from attnprobe.report.style import BAND_ALPHA, figure_style, legend_above, panel_grid, save_figure

KINDS = {
    "own": ("own profile", "-"),
    "clamp": ("given in place of own profile (dose 1)", "-."),
    "shuffled": ("control: values shuffled over offsets", "--"),
}


def draw_dose_response(response: DoseResponse, stem: Path) -> list[Path]:
    """Accuracy and loss against the dose, bands over sequences; the dotted line is the model left alone."""
    quantities = [q for q in ("accuracy", "loss") if response.select(q, "own")]
    colors = dict(zip(KINDS, seaborn.color_palette("colorblind", len(KINDS)), strict=True))
    with figure_style():
        figure, (panels,) = panel_grid(1, len(quantities), panel=(2.9, 2.2), share=False)
        for panel, quantity in zip(panels, quantities, strict=True):
            for kind, (name, line) in KINDS.items():
                rows = response.select(quantity, kind)
                if not rows:
                    continue
                doses = np.array([row.dose for row in rows], dtype=np.float64)
                estimate, low, high = (
                    np.array([getattr(row.interval, part) for row in rows]) for part in ("estimate", "low", "high")
                )
                panel.plot(doses, estimate, line, color=colors[kind], label=name, marker="o", markersize=3)
                panel.fill_between(doses, low, high, color=colors[kind], alpha=BAND_ALPHA, linewidth=0)
            alone = [row.interval.estimate for row in response.select(quantity, "own") if row.dose == 0]
            if alone:
                panel.axhline(alone[0], color="0.5", linestyle=":", linewidth=0.8, zorder=0)
            panel.axvline(0, color="0.9", linewidth=0.8, zorder=0)
            panel.set_xlabel("dose (-1 removes the profile)")
            panel.set_ylabel(quantity)
        legend_above(figure, panels[0])
        return save_figure(figure, stem)
