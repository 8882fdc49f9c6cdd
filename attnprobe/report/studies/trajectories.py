"""What was recorded while the runs of a study trained: the mean over seeds with its interval, against the update."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from attnprobe.errors import ArtifactError
from attnprobe.launch.trajectory import read_run
from attnprobe.report.style import BAND_ALPHA, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure
from attnprobe.report.trajectory_figures import PHASES, scale_steps
from attnprobe.statistics.intervals import student_interval
from attnprobe.studies.cells import label
from attnprobe.studies.study import Figure, Outcome, Study

Curves = dict[tuple[str | None, str | None, str], dict[int, list[float]]]  # panel, line, phase -> step -> over seeds


def draw_trajectory(
    study: Study, name: str, outcomes: Sequence[Outcome], stem: Path, *, warn: Callable[[str], None]
) -> list[Path]:
    """A row of panels per choice of ``panels``, a column per phase, a line per choice of ``lines``.

    Of every run the mean over layers and heads, along the first direction that was recorded; runs that fall together
    in a line count as one each. Nothing is drawn where no run was recorded yet.
    """
    figure = study.figures[name]
    curves = collect(figure, outcomes, warn)
    if not curves:
        return []
    phases = [phase for phase in PHASES if any(key[2] == phase for key in curves)]
    panels, lines = (list(dict.fromkeys(key[i] for key in curves)) for i in (0, 1))
    colors = checkpoint_colors([str(line) for line in lines])
    with figure_style():
        canvas, axes = panel_grid(len(panels), len(phases), panel=(3.0, 2.0), share=False)
        for row, panel in zip(axes, panels, strict=True):
            for place, phase in zip(row, phases, strict=True):
                for line in lines:
                    if found := curves.get((panel, line, phase)):
                        text = "_" if line is None else label(study, str(figure.lines), line)
                        draw_curve(place, found, color=colors[str(line)], label=text)
                place.set_title(PHASES[phase] if row is axes[0] else "")
                steps = [step for key, found in curves.items() if key[2] == phase for step in found]
                scale_steps(place, max(steps, default=1))
                place.set_xlabel("update" if row is axes[-1] else "")
            where = "" if panel is None else f"{label(study, str(figure.panels), panel)}\n"
            row[0].set_ylabel(where + figure.number.replace("_", " "))
        most = max((place for row in axes for place in row), key=lambda p: len(p.get_legend_handles_labels()[1]))
        if most.get_legend_handles_labels()[1]:
            legend_above(canvas, most, title=figure.lines)
        return save_figure(canvas, stem)


def collect(figure: Figure, outcomes: Iterable[Outcome], warn: Callable[[str], None]) -> Curves:
    """Of every run that was recorded one number for each step."""
    curves: Curves = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        place = [None if axis is None else outcome.place[axis] for axis in (figure.panels, figure.lines)]
        for folder in filter(None, (outcome.pretraining, outcome.folder)):
            try:
                records = [r for r in read_run(folder, warn=warn) if r["quantity"] == figure.number]
            except ArtifactError:  # not recorded, as of models without scores
                continue
            for (phase, step), value in means(records).items():
                curves[place[0], place[1], phase][step].append(value)
    return curves


def means(records: Sequence[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Phase and step -> the mean over layers and heads, along the first direction."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in records:
        if record["direction"] == records[0]["direction"] and record["estimate"] is not None:
            found[record["phase"], record["step"]].append(record["estimate"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def draw_curve(panel: Axes, found: dict[int, list[float]], *, color: Any, label: str) -> None:
    steps = sorted(found)
    intervals = [student_interval(found[step], unit="") for step in steps]
    panel.plot(steps, [i.estimate for i in intervals], color=color, label=label, marker="o", markersize=2, linewidth=1)
    low, high = [i.low for i in intervals], [i.high for i in intervals]
    panel.fill_between(steps, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
