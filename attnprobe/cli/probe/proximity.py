"""attnprobe probe proximity: how strongly pre-softmax scores prefer near keys."""

from typing import Annotated

import typer

from attnprobe.cli.probe.driver import Findings, Found, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.options import Checkpoints
from attnprobe.cli.probe.table import Column, Table, interval, probability
from attnprobe.cli.screen.output import finite


def summary(record: Record) -> Record:
    """Of pooled seeds the mean over heads and the largest head are lines like those of heads."""
    quantity, _, over_heads = record["quantity"].partition(".")
    return (
        record | {"quantity": quantity, "head": {"max": "largest"}.get(over_heads, over_heads)}
        if over_heads
        else record
    )


TABLE = Table(
    title="proximity of pre-softmax scores",
    keys=("checkpoint", "layer", "head"),
    columns=(
        Column(heading="bias\n(sd of scores)", where={"quantity": "proximity_bias"}, text=interval("+.3f")),
        Column(heading="near mass\n(x uniform)", where={"quantity": "near_mass"}, text=interval(".3g")),
        Column(heading="attention\ndistance", where={"quantity": "distance"}, text=interval(".3g")),
        Column(heading="entropy\n(nats)", where={"quantity": "entropy"}, text=interval(".3g")),
        Column(heading="bias p", where={"quantity": "proximity_bias"}, text=probability("p_value"), full=True),
    ),
    line=summary,
    ranked_by="proximity_bias",
)


def proximity(
    request: Request,
    checkpoints: Checkpoints,
    radius: Annotated[
        float | None,
        typer.Option(
            min=0.0, callback=finite, help="Near means up to here; pixels or positions.", show_default="1.5 or 3"
        ),
    ] = None,
    without_self: Annotated[bool, typer.Option("--without-self", help="Leave each position's own key out.")] = False,
    permutations: Annotated[
        int, typer.Option(min=19, max=99_999, help="Draws of the null that permutes key positions.")
    ] = 999,
) -> Findings:
    """How strongly do pre-softmax QK scores prefer near keys, per layer and head?

    Examples:

        attnprobe probe proximity runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe proximity runs/textures-s0/checkpoints/*.pt --figure proximity

        attnprobe probe proximity ckpt.pt --radius 2 --csv rows.csv --json

    proximity_bias is the mean row-centred score of near pairs minus that of the others, in standard deviations of the
    scores, with a bootstrap interval over sequences and a p-value against permuted key positions. Checkpoints that
    differ in nothing but the seed are also summed up together: intervals are then over seeds.
    """
    from attnprobe.probes.proximity.probe import measure
    from attnprobe.report import verdicts
    from attnprobe.report.figures import draw_proximity

    found = request.measure_each(
        checkpoints,
        lambda opened, report: measure(
            opened.subject(seed=request.seed),
            radius=radius,
            level=request.level,
            permutations=permutations,
            include_self=not without_self,
            seed=request.seed,
            progress=report,
            **request.sampling(),
        ),
    )
    return Findings(
        records=found.records() + pooled(found, request),
        table=TABLE,
        verdict=verdicts.proximity,
        results=found.results,
        draw=lambda name: draw_proximity(found.results, name),
    )


def pooled(found: Found, request: Request) -> list[Record]:
    """Records over all seeds of every setting that was given with several of them."""
    from attnprobe.opening import same_but_seed
    from attnprobe.probes.proximity.probe import pool
    from attnprobe.probes.rows import rows_to_records

    records: list[Record] = []
    for name, members in same_but_seed(found.opened).items():
        results = [found.results[member.label] for member in members]
        records += rows_to_records(pool(results, level=request.level, seed=request.seed), name)
    return records


command = make_command(proximity, further=("maps",))
