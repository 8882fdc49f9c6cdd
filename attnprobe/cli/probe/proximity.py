"""attnprobe probe proximity: how strongly pre-softmax scores prefer near keys."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attnprobe.cli.probe.driver import Findings, Found, Request, make_command
from attnprobe.cli.probe.files import Record
from attnprobe.cli.probe.options import Models
from attnprobe.cli.probe.table import Column, Table, interval, tested
from attnprobe.cli.screen.output import finite, say


class NullName(StrEnum):
    init = "init"
    keys = "keys"
    none = "none"


def summary(record: Record) -> Record:
    """The largest head, and of pooled seeds the mean over heads, are lines like those of heads."""
    quantity, _, over_heads = record["quantity"].partition(".")
    named = {"max": "largest", "max_beyond_null": "largest - null"}
    return record | {"quantity": quantity, "head": named.get(over_heads, over_heads)} if over_heads else record


TABLE = Table(
    title="proximity of pre-softmax scores",
    keys=("checkpoint", "layer", "head"),
    columns=(
        Column(heading="bias\n(sd of scores)", where={"quantity": "proximity_bias"}, text=interval("+.3f")),
        Column(
            heading="p against new\nW_Q and W_K",
            where={"quantity": "proximity_bias", "null": "init"},
            text=tested("p_value"),
        ),
        Column(
            heading="p against\npermuted keys",
            where={"quantity": "proximity_bias", "null": "keys"},
            text=tested("p_value"),
        ),
        Column(heading="sd of\nscores", where={"quantity": "score_sd"}, text=interval(".3g")),
        Column(heading="near mass\n(x uniform)", where={"quantity": "near_mass"}, text=interval(".3g")),
        Column(heading="attention\ndistance", where={"quantity": "distance"}, text=interval(".3g")),
        Column(heading="entropy\n(nats)", where={"quantity": "entropy"}, text=interval(".3g")),
        Column(heading="q", where={"quantity": "proximity_bias"}, text=tested("q_value"), full=True),
    ),
    line=summary,
    ranked_by="proximity_bias",
)


def proximity(
    request: Request,
    checkpoints: Models,
    radius: Annotated[
        float | None,
        typer.Option(
            min=0.0, callback=finite, help="Near means up to here; pixels or positions.", show_default="1.5 or 3"
        ),
    ] = None,
    without_self: Annotated[
        bool, typer.Option("--without-self", help="Leave each position's own key out of all pairs.")
    ] = False,
    null: Annotated[
        NullName,
        typer.Option(help="What p-values compare with: W_Q and W_K drawn anew, permuted keys (another question!)."),
    ] = NullName.init,
    draws: Annotated[
        int | None,
        typer.Option(min=1, max=99_999, help="Draws of the null.", show_default="99, or 1 / (1 - level) - 1"),
    ] = None,
    save_qk: Annotated[
        Path | None,
        typer.Option(
            help="Also write queries and keys into this new folder, as safetensors.", metavar="DIR", show_default=False
        ),
    ] = None,
) -> Findings:
    """How strongly do pre-softmax QK scores prefer near keys, per layer and head?

    Examples:

        attnprobe probe proximity runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe proximity runs/textures-s0/checkpoints/*.pt --figure proximity

        attnprobe probe proximity ckpt.pt --radius 2 --without-self --csv rows.csv --json

        attnprobe probe proximity ckpt.pt --null none

        attnprobe probe proximity hf:models/bert --text book.txt -n 100 --max-length 64

    proximity_bias is the mean row-centred score of near pairs minus that of the others, in standard deviations of the
    scores (score_sd), with a bootstrap interval over sequences. Its p-value is against the same model with W_Q and W_K
    drawn anew as at the start of training, and so is that of the largest head (proximity_bias.max). --null keys
    permutes the key positions of the scores instead: that asks whether scores depend on where keys stand at all, which
    those of an untrained model do too. Checkpoints that differ in nothing but the seed are also summed up together:
    intervals are then over seeds.
    """
    from attnprobe.capture.saving import check_folder, save_queries_and_keys
    from attnprobe.probes.proximity.probe import measure
    from attnprobe.report import verdicts
    from attnprobe.report.figures import draw_proximity

    if save_qk is not None:
        check_folder(save_qk)
    found = request.measure_each(
        checkpoints,
        lambda opened, report: measure(
            opened.subject(seed=request.seed),
            radius=radius,
            level=request.level,
            null=null.value,
            draws=draws,
            include_self=not without_self,
            seed=request.seed,
            progress=report,
            **request.sampling(),
        ),
    )
    if save_qk is not None:
        for opened in found.opened:
            subject, samples = opened.subject(seed=request.seed), found.results[opened.label].samples
            folder = save_qk if len(found.opened) == 1 else save_qk / opened.label.replace("/", "-")
            written = save_queries_and_keys(subject, samples, folder)
            say(f"queries and keys: {len(written)} files in {folder}", quiet=request.quiet)
    return Findings(
        records=found.records("null") + pooled(found, request),
        table=TABLE,
        verdict=verdicts.proximity,
        results=found.results,
        captures=found.captures(),
        draw=lambda name: draw_proximity(found.results, name),
    )


def pooled(found: Found, request: Request) -> list[Record]:
    """Records over all seeds of every setting that was given with several of them."""
    from attnprobe.opening import same_but_seed
    from attnprobe.probes.proximity.pooled import pool
    from attnprobe.probes.rows import rows_to_records

    records: list[Record] = []
    for name, members in same_but_seed(found.opened).items():
        results = [found.results[member.label] for member in members]
        records += rows_to_records(pool(results, level=request.level, seed=request.seed), name, "null")
    return records


command = make_command(proximity, further=("maps",), needs="scores")
