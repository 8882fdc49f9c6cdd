"""Learning curves: every metric of every phase by epoch."""

import math
from collections.abc import Sequence

import numpy as np

from attnprobe.errors import ArtifactError
from attnprobe.files import json_lines, reading
from attnprobe.report.page.charts.axes import STYLES, drawable
from attnprobe.report.page.charts.lines import Line, Panel, line_figure
from attnprobe.report.page.material import Arm, Material, ReadRun, Record
from attnprobe.report.page.parts import Section, Text
from attnprobe.report.trajectory_figures import PHASES

METRICS = {
    "validation_accuracy": "validation accuracy", "train_accuracy": "training accuracy",
    "validation_loss": "validation loss", "train_loss": "training loss",
}  # fmt: skip


def section(material: Material) -> Section | None:
    metrics = {run.listed.folder: read_metrics(run) for arm in material.arms for run in drawn(arm)}
    further = []
    for phase, name in PHASES.items():
        title = name.capitalize()
        panels = [panel_of(material.arms, metrics, phase, metric) for metric in METRICS]
        panels = [panel for panel in panels if panel.lines]
        if panels:
            caption = f"{title}, by epoch: means over the runs of an arm, bands from the lowest to the highest."
            figure = line_figure(panels, caption=caption, x_label="epoch", size="large")
            further.append(Section(title=title, parts=[figure]))
    about = [Text(text="Hover over a curve for its values.")]
    return Section(title="Learning curves", parts=about, further=further) if further else None


def drawn(arm: Arm) -> Sequence[ReadRun]:
    """Its finished runs, if there are any: a mean over runs that end at different epochs would jump."""
    return arm.finished or arm.runs


def read_metrics(run: ReadRun) -> list[Record]:
    """What is drawn, of the lines that can be read: an interruption may have cut off the last."""
    path = run.folder / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    try:
        with reading(path):
            for record in json_lines(path):
                records.append({key: record[key] for key in ("phase", "epoch", *METRICS) if key in record})
    except ArtifactError:
        pass
    return records


def panel_of(arms: Sequence[Arm], metrics: dict[str, list[Record]], phase: str, metric: str) -> Panel:
    lines = []
    for number, arm in enumerate(arms):
        curves = [curve(metrics[run.listed.folder], phase, metric) for run in drawn(arm)]
        curves = [c for c in curves if c]
        if curves:
            lines.append(_line(arm.name, number, curves))
    name = METRICS[metric]
    return Panel(title=name, lines=lines, y_label=name.rpartition(" ")[2])


def curve(records: list[Record], phase: str, metric: str) -> dict[int, float]:
    """Epoch -> value, of those that can be drawn: runs that went on after a NaN have others, too."""
    own = [r for r in records if r.get("phase") == phase and isinstance(r.get("epoch"), int)]
    return {r["epoch"]: float(r[metric]) for r in own if isinstance(r.get(metric), int | float) and drawable(r[metric])}


def _line(name: str, number: int, curves: list[dict[int, float]]) -> Line:
    epochs = sorted({epoch for c in curves for epoch in c})
    values = np.array([[c.get(epoch, math.nan) for epoch in epochs] for c in curves])
    band = {}
    if len(curves) > 1:
        name = f"{name} ({len(curves)} seeds)"
        band = {"low": np.nanmin(values, 0).tolist(), "high": np.nanmax(values, 0).tolist()}
    return Line(name=name, style=number % STYLES, x=epochs, y=np.nanmean(values, 0).tolist(), **band)
