"""What was probed while the runs trained."""

import math

from attnprobe.errors import ArtifactError
from attnprobe.launch.trajectory import read_run
from attnprobe.report import verdicts
from attnprobe.report.page.charts.axes import STYLES
from attnprobe.report.page.charts.lines import Line, Panel, line_figure
from attnprobe.report.page.material import Material, Record
from attnprobe.report.page.parts import Section, Text
from attnprobe.report.trajectory_figures import PHASES

QUANTITIES = {
    "proximity_bias": "proximity bias (sd of scores)",
    "reconstruction.t": "reconstruction gradient (t)",
    "label.dependent.t": "label gradient, labels' part (t)",
}
MOST_HEADS = 8


def section(material: Material) -> Section | None:
    """Of the first run of every arm that recorded one."""
    further = []
    for arm in material.arms:
        for run in arm.runs:
            try:
                records = read_run(run.folder, warn=lambda text: None)
            except ArtifactError:  # it was not recorded
                continue
            records = [record | {"run": arm.name} for record in records]
            further.append(Section(title=f"{arm.name}, seed {run.listed.seed}", parts=parts(records)))
            break
    return Section(title="Trajectory", further=further) if further else None


def parts(records: list[Record]) -> list:
    heads = sorted({(r["layer"], r["head"]) for r in records})
    shown, omitted = largest(records, heads), len(heads) - MOST_HEADS
    panels = []
    for quantity, name in QUANTITIES.items():
        for phase, title in PHASES.items():
            lines = [_line(records, quantity, phase, head, number) for number, head in enumerate(shown)]
            panels.append(Panel(title=f"{name}, {title}", lines=[line for line in lines if line.x], zero=True))
    caption = "By training step, a line per head; bands are 95 % intervals over the sequences that were watched."
    caption += f" {len(shown)} of {len(heads)} heads: those of the largest bias at the end." if omitted > 0 else ""
    return [
        Text(text=verdicts.trajectory(records)),
        line_figure(panels, caption=caption, x_label="step", kind="steps", digits="+.2f", size="large"),
    ]


def largest(records: list[Record], heads: list[tuple[int, int]]) -> list[tuple[int, int]]:
    last = {(r["layer"], r["head"]): abs(r["estimate"] or 0) for r in records if r["quantity"] == "proximity_bias"}
    return sorted(sorted(heads, key=lambda head: -last.get(head, 0.0))[:MOST_HEADS])


def _line(records: list[Record], quantity: str, phase: str, head: tuple[int, int], number: int) -> Line:
    rows = [r for r in records if (r["quantity"], r["phase"], r["layer"], r["head"]) == (quantity, phase, *head)]
    rows.sort(key=lambda r: r["step"])
    columns = {key: [math.nan if r.get(key) is None else r[key] for r in rows] for key in ("estimate", "low", "high")}
    return Line(
        name=f"layer {head[0]}, head {head[1]}", style=number % STYLES, x=[r["step"] for r in rows],
        y=columns["estimate"], low=columns["low"], high=columns["high"],
    )  # fmt: skip
