"""attnprobe probe trajectory: what was measured while runs trained, and is measured on a model's saved states."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.table import MOST_LINES, Column, Table, estimate, interval, probability
from attnprobe.cli.screen.output import say
from attnprobe.opening import FOREIGN, is_foreign


def trajectory(
    request: Request,
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories trained with --probe-every, or hf:FOLDER of checkpoints, hf:ID@REV,REV."),
    ],
) -> Findings:
    """Proximity bias, and both losses' gradients along near against far keys, by training step.

    Examples:

        attnprobe train --probe-every 2 && attnprobe probe trajectory runs/textures-s0

        attnprobe probe trajectory runs/textures-s* --figure trajectory --csv trajectory.csv

        attnprobe probe trajectory hf:models/mine --text book.txt --figure trajectory

        attnprobe probe trajectory hf:EleutherAI/pythia-70m@step0,step512,step8000 --text book.txt --allow-download

    Of runs of ours it shows what was recorded; the folders checkpoint-100, step2000, ... of a Hugging Face model, or
    its revisions, are measured now, one after the other, on the same sequences (-n, --seed; with --label-column their
    gradients too). The table follows one head of every run, the one whose bias is the largest in size at the end, at a
    few steps.
    """
    from attnprobe.launch.trajectory import read_runs
    from attnprobe.report import verdicts
    from attnprobe.report.trajectory_figures import draw_trajectory

    own = [path for path in runs if not is_foreign(path)]
    records = read_runs(own, warn=warn)
    captures: Record = {}
    for path in runs:
        if path not in own:
            found, seen = measured(request, path)
            records, captures = records + found, captures | seen
    return Findings(
        records=records,
        table=table(records),
        verdict=verdicts.trajectory,
        draw=lambda name: draw_trajectory(records, name),
        captures=captures,
    )


def measured(request: Request, path: Path) -> tuple[list[Record], Record]:
    """Of the saved states of a model of Hugging Face: records, and how each was watched."""
    from attnprobe.capture.hugging_face.opening import Source
    from attnprobe.launch.foreign_trajectory import ForeignTrajectory

    model = str(path).removeprefix(FOREIGN)
    source = Source(model=model, **request.foreign)
    states = ForeignTrajectory(
        source=source, device=request.device, sequences=request.sequences, seed=request.seed, warn=warn
    )
    with request.progress(model) as report:
        records = states.measure(report)
    for name, capture in states.captures.items():
        say(f"{name}: {capture}", quiet=request.quiet)
    return records, {name: dataclasses.asdict(capture) for name, capture in states.captures.items()}


def warn(text: str) -> None:
    say(f"warning: {text}")


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
    without=("split", "level", "memory_limit", "data_dir", "npz"),
    needs="both",
    sequences=100,
)
