"""attnprobe probe trajectory: what was measured while runs trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.table import MOST_LINES, Column, Table, estimate, interval, probability
from attnprobe.cli.screen.output import say


def trajectory(
    request: Request,
    runs: Annotated[list[Path], typer.Argument(help="Run directories trained with --probe-every.")],
) -> Findings:
    """Proximity bias, and both losses' gradients along near against far keys, by training step.

    Examples:

        attnprobe train --probe-every 2 && attnprobe probe trajectory runs/textures-s0

        attnprobe probe trajectory runs/textures-s* --figure trajectory --csv trajectory.csv

    The table follows one head of every run, the one whose bias is the largest in size at the end, at a few steps.
    """
    from attnprobe.launch.trajectory import read_runs
    from attnprobe.report import verdicts
    from attnprobe.report.trajectory_figures import draw_trajectory

    records = read_runs(runs, warn=lambda text: say(f"warning: {text}"))
    return Findings(
        records=records,
        table=table(records),
        verdict=verdicts.trajectory,
        draw=lambda name: draw_trajectory(records, name),
    )


def table(records: list[Record]) -> Table:
    """Without --full of every run one head, at its first and last step and some between."""
    from attnprobe.report.verdicts import followed_heads

    heads = followed_heads(records)
    steps: dict[tuple[Any, ...], list[int]] = {}
    for record in records:
        known = steps.setdefault((record["run"], record["phase"]), [])
        known += [record["step"]] if record["step"] not in known else []
    most = max(2, MOST_LINES // len(steps))
    few = {place: set(thinned(sorted(known), most)) for place, known in steps.items()}

    def wanted(record: Record) -> bool:
        own = heads.get(record["run"]) == (record["layer"], record["head"])
        return own and record["step"] in few[record["run"], record["phase"]]

    return Table(
        title="trajectory",
        keys=("run", "phase", "step", "layer", "head"),
        columns=(
            Column(heading="proximity bias", where={"quantity": "proximity_bias"}, text=interval("+.2f")),
            Column(heading="reconstruction t", where={"quantity": "reconstruction.t"}, text=estimate("+.1f")),
            Column(heading="labels' part t", where={"quantity": "label.dependent.t"}, text=estimate("+.1f")),
            Column(heading="its q", where={"quantity": "label.dependent.mean"}, text=probability("q_value")),
            Column(heading="its p", where={"quantity": "label.dependent.mean"}, text=probability("p_value"), full=True),
        ),
        wanted=wanted,
    )


def thinned(steps: list[int], most: int) -> list[int]:
    """The first, the last, and evenly spaced ones between."""
    if len(steps) <= most:
        return steps
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


command = make_command(
    trajectory,
    reads=("trajectory.jsonl", "telemetry.jsonl"),
    without=("sequences", "split", "level", "memory_limit", "seed", "device", "data_dir", "npz"),
)
