"""Rates of every promise, cell by cell, beside what was promised."""

from collections.abc import Sequence
from pathlib import Path

from attnprobe.calibration.verdicts import PROMISES, Row, Summary, summaries
from attnprobe.report.style import BAND_ALPHA, figure_style, panel_grid, save_figure

TITLES = {"p-value": "false positives at .05", "interval": "coverage of 95 %", "verdict": "wrong verdicts"}
COLOR, OFF = "#4c72b0", "#c44e52"


def draw_calibration(rows: Sequence[Row], name: Path) -> list[Path]:
    """A panel per kind of promise: a line per promise, a dot per cell, a bar for all cells together."""
    found = [summary for summary in summaries(rows) if summary.answered]
    kinds = [kind for kind in TITLES if any(summary.together.kind == kind for summary in found)]
    most = max(sum(summary.together.kind == kind for summary in found) for kind in kinds)
    with figure_style():
        figure, axes = panel_grid(1, len(kinds), panel=(4.4, 0.24 * most + 0.6), share=False)
        for panel, kind in zip(axes[0], kinds, strict=True):
            _panel(panel, [summary for summary in found if summary.together.kind == kind])
            panel.set_title(TITLES[kind])
        return save_figure(figure, name)


def _panel(panel, found: Sequence[Summary]) -> None:
    promise = PROMISES[found[0].together.kind]
    panel.axvspan(promise.low, promise.high, color="0.5", alpha=BAND_ALPHA, linewidth=0)
    panel.axvline(promise.nominal, color="0.4", linewidth=0.8)
    for place, summary in enumerate(found):
        for row in summary.answered:
            color = COLOR if row.outside == "ok" else OFF
            panel.plot(row.rate, place, "o", color=color, alpha=0.5, markersize=3, markeredgewidth=0)
        row = summary.together
        panel.plot([row.low, row.high], [place, place], color="black", linewidth=1.5)
        panel.plot(row.rate, place, "|", color="black", markersize=9)
    labels = [f"{summary.together.probe}: {summary.together.quantity}" for summary in found]
    panel.set_yticks(range(len(found)), labels)
    panel.invert_yaxis()
    panel.set_xlabel("share of replicas")
