"""attnprobe theory certify: slope and curvature of both losses along named directions, on a real checkpoint."""

from typing import Annotated

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.options import OneCheckpoint
from attnprobe.cli.probe.table import Column, Table, interval, number, probability
from attnprobe.opening import SplitName

MAIN = "proximity r=2"  # the direction that is shown without --full


def null(row: Record) -> str:
    return f"[{number(row['null_low'], '+.1e')}, {number(row['null_high'], '+.1e')}]"


def agreement(row: Record) -> str:
    return number(row["difference"], ".0e") + ("" if row["agrees"] else " DISAGREES")


def columns(loss: str, quantity: str) -> list[Column]:
    where = {"loss": loss, "quantity": quantity}
    found = [Column(heading=f"{loss} {quantity}", where=where, text=interval("+.1e"))]
    if loss == "label":
        found.append(Column(heading="under shuffled labels", where=where, text=null, full=quantity == "curvature"))
        found.append(Column(heading=f"p of {quantity}", where=where, text=probability("p_value"), full=True))
    return [*found, Column(heading="two ways differ by", where=where, text=agreement, full=True)]


TABLE = Table(
    title="slope and curvature of the losses along directions of the scores",
    keys=("direction", "layer", "head"),
    columns=tuple(
        column
        for loss in ("label", "reconstruction")
        for quantity in ("slope", "curvature")
        for column in columns(loss, quantity)
    ),
    wanted=lambda row: row["direction"] == MAIN,
)


def certify(
    request: Request,
    checkpoint: OneCheckpoint,
    task: Annotated[
        str | None, typer.Option(help="Measure on the task of this preset or .toml file.", show_default="the run's own")
    ] = None,
    shuffles: Annotated[int, typer.Option(min=19, max=99_999, help="Draws of the shuffled-label null.")] = 999,
) -> Findings:
    """Is the label loss locally blind along proximity, on this model? Slope and curvature, with intervals.

    Examples:

        attnprobe theory certify runs/textures-s0/checkpoints/init.pt

        attnprobe theory certify runs/textures-s0/checkpoints/init.pt -n 400 --json

    Every derivative is computed twice in float64, by differentiating and by central finite differences. Exit code 5
    if the two disagree anywhere.
    """
    from attnprobe import presets, run
    from attnprobe.probes.certificate import measure
    from attnprobe.report import verdicts

    found = request.measure_each(
        [checkpoint],
        lambda opened, report: measure(
            opened.subject(seed=request.seed),
            n=request.sequences,
            shuffles=shuffles,
            level=request.level,
            seed=request.seed,
            progress=report,
        ),
        task=None if task is None else run.from_table(presets.read_table(task)).task,
    )
    records = found.records("direction", "loss", "null_low", "null_high", "difference", "agrees")
    passed = all(record["agrees"] for record in records)
    return Findings(records=records, table=TABLE, verdict=verdicts.certify, results=found.results, passed=passed)


command = make_command(certify, without=("npz", "figure", "memory_limit"), sequences=200, split=SplitName.train)
