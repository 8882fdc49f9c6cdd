"""attnprobe theory certify: are labels blind to proximity on a real checkpoint, and up to which ratio?"""

from typing import Annotated

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.options import Models
from attnprobe.cli.probe.table import Column, Table, interval, number
from attnprobe.opening import SplitName

RATIO = "label / reconstruction"


def null(row: Record) -> str:
    return f"[{number(row['null_low'], '+.1e')}, {number(row['null_high'], '+.1e')}]"


def is_main(row: Record) -> bool:
    """Whether its direction is shown without --full."""
    from attnprobe.scores.named import MAIN_DIRECTIONS

    return row["direction"] in MAIN_DIRECTIONS


def agreement(row: Record) -> str:
    return (
        number(row["difference"], ".0e") + (" rough" if row["rough"] else "") + ("" if row["agrees"] else " DISAGREES")
    )


def family_p(row: Record) -> str:
    return "not claimed" if row["family"] is None else number(row["family_p"], ".3f")


def bound(row: Record) -> str:
    return "unbounded" if row["high"] is None else format(row["high"], ".2g")


def columns(quantity: str) -> list[Column]:
    label, reconstruction, ratio = ({"loss": loss, "quantity": quantity} for loss in ("label", "reconstruction", RATIO))
    full = quantity == "curvature"
    return [
        Column(heading=f"label {quantity}", where=label, text=interval("+.1e"), full=full),
        Column(heading=f"family-wise p of {quantity}", where=label, text=family_p, full=full),
        Column(heading=f"reconstruction {quantity}", where=reconstruction, text=interval("+.1e"), full=full),
        Column(heading=f"ratio of {quantity}s at most", where=ratio, text=bound, full=full),
        Column(heading="under shuffled labels", where=label, text=null, full=True),
        Column(heading="label: two ways differ by", where=label, text=agreement, full=True),
        Column(heading="reconstruction: two ways differ by", where=reconstruction, text=agreement, full=True),
    ]


TABLE = Table(
    title="the label-dependent part along directions of the scores",
    keys=("checkpoint", "direction", "layer", "head"),
    columns=(*columns("slope"), *columns("curvature")),
    wanted=is_main,
)


def certify(
    request: Request,
    checkpoints: Models,
    task: Annotated[
        str | None, typer.Option(help="Measure on the task of this preset or .toml file.", show_default="the run's own")
    ] = None,
    shuffles: Annotated[int, typer.Option(min=1, max=99_999, help="Draws of the shuffled-label null.")] = 999,
    stepped: Annotated[
        int, typer.Option(min=2, help="Sequences to take finite score steps on, for curvatures: the slow part.")
    ] = 200,
) -> Findings:
    """Are labels blind to proximity, on this model? Up to which share of reconstruction's pull?

    Examples:

        attnprobe theory certify runs/textures-s0/checkpoints/init.pt

        attnprobe theory certify runs/textures-s0/checkpoints/pretrained.pt --split test -n 1000 --json

        attnprobe theory certify runs/textures-s0/checkpoints/finetuned.pt --full

    The part of the label loss that depends on the labels is compared with shuffled labels along near against far keys
    (contrast; slope and curvature) and a random direction (slope), without their column sums, in all heads at once: the
    chance of a false "not blind" is 1 - level, and --split test asks other sequences. Exit code 5 if a checkpoint is
    not blind, or if two computations of a derivative that decides disagree. Training on labels usually ends blindness.
    """
    from attnprobe import presets, run
    from attnprobe.probes import blindness
    from attnprobe.probes.alignment.checks import check_draws
    from attnprobe.report import blindness_verdict

    check_draws({"shuffles": shuffles}, request.level)
    found = request.measure_each(
        checkpoints,
        lambda opened, report: blindness.measure(
            opened.subject(seed=request.seed),
            stepped=stepped,
            shuffles=shuffles,
            level=request.level,
            seed=request.seed,
            progress=report,
            **request.sampling(),
        ),
        task=None if task is None else run.from_table(presets.read_table(task)).task,
    )
    records = found.records(*blindness.FIELDS)
    passed = all(result.passed for result in found.results.values())
    verdict = blindness_verdict.certify
    return Findings(
        records=records, table=TABLE, verdict=verdict, results=found.results, captures=found.captures(), passed=passed
    )


command = make_command(certify, without=("npz", "figure"), needs="both", sequences=500, split=SplitName.train)
