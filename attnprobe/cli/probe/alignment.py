"""attnprobe probe alignment: label against reconstruction gradients along attention-score directions."""

import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import Models
from attnprobe.cli.probe.table import Column, Record, Table, estimate, interval, number, probability
from attnprobe.cli.screen.output import finite, say
from attnprobe.errors import ConfigError
from attnprobe.opening import Opened, OpenedCheckpoint, SplitName

if TYPE_CHECKING:
    from attnprobe.capture.subject import Subject
    from attnprobe.probes.alignment.probe import Alignment
    from attnprobe.probes.sequences import Progress

BOUNDS = ("estimate", "low", "high")


class NullName(StrEnum):
    positions = "positions"
    phase = "phase"
    none = "none"


class AlongName(StrEnum):
    contrast = "contrast"
    proximity = "proximity"


def band(row: Record) -> str:
    return f"[{number(row['low'], '+.1f')}, {number(row['high'], '+.1f')}]"


def price(row: Record) -> str:
    """A number of sequences, rounded up, and its interval; none is known to be enough where the mean may be zero."""
    estimate, low, high = ("no limit" if row[key] is None else f"{math.ceil(row[key]):,}" for key in BOUNDS)
    return f"> {low}" if row["estimate"] is None else f"{estimate} [{low}, {high}]"


def bound(row: Record) -> str:
    return "no bound" if row["high"] is None else f"<= {row['high']:.2g}"


def is_main(row: Record) -> bool:
    """Whether its direction is shown without --full."""
    from attnprobe.scores.named import MAIN_DIRECTIONS

    return row["direction"] in (*MAIN_DIRECTIONS, "change", "change by offset")


def column(heading: str, quantity: str, text: Callable[[Record], str], *, full: bool = False) -> Column:
    return Column(heading=heading, where={"quantity": quantity}, text=text, full=full)


TABLE = Table(
    title="gradients along score directions",
    keys=("checkpoint", "direction", "layer", "head"),
    columns=(
        column("label t", "label.t", estimate("+.1f")),
        column("labels' part q", "label.dependent.mean", probability("q_value")),
        column("labels' part / reconstruction", "label_to_reconstruction", bound),
        column("reconstruction t", "reconstruction.t", interval("+.1f")),
        column("shuffled labels t", "label.t.null", band),
        column("labels' part p", "label.dependent.mean", probability("p_value"), full=True),
        column("labels' part: sequences to detect", "label.dependent.sequences", price, full=True),
        column("reconstruction p", "reconstruction.mean", probability("p_value"), full=True),
        column("q among random orders", "reconstruction.positions", probability("q_value")),
        column("p among random orders", "reconstruction.positions", probability("p_value"), full=True),
        column("q among random phases", "reconstruction.phase", probability("q_value")),
        column("p among random phases", "reconstruction.phase", probability("p_value"), full=True),
        column("null t", "reconstruction.t.null", band, full=True),
        column("reconstruction: sequences to detect", "reconstruction.sequences", price, full=True),
    ),
    wanted=is_main,
    ranked_by="reconstruction.t",
)


def alignment(
    request: Request,
    checkpoints: Models,
    change_to: Annotated[
        Path | None,
        typer.Option(help="Also project on the change of scores towards this checkpoint.", show_default=False),
    ] = None,
    shuffles: Annotated[int, typer.Option(max=99_999, help="Shuffles of the labels (and of signs).")] = 999,
    null: Annotated[
        NullName | None,
        typer.Option(
            help="What reconstruction is compared with: data in random orders, profiles of random phases.",
            show_default="positions; none where lengths differ too much for it",
        ),
    ] = None,
    orders: Annotated[int, typer.Option(max=99_999, help="Random orders (each a pass over the data) or phases.")] = 39,
    power: Annotated[
        float, typer.Option(min=0.5, max=0.999, callback=finite, help="Power at which sequences to detect are named.")
    ] = 0.8,
    along: Annotated[
        AlongName, typer.Option(help="Near against far others, or also the position itself, as a direction.")
    ] = AlongName.contrast,
) -> Findings:
    """Do labels pull the attention scores where reconstruction pulls them, and can labels be heard there at all?

    Examples:

        attnprobe probe alignment runs/textures-s0/checkpoints/init.pt

        attnprobe probe alignment init.pt --change-to pretrained.pt --figure alignment

        attnprobe probe alignment runs/textures-s0/checkpoints/*.pt --null phase --csv alignment.csv

        attnprobe probe alignment hf:models/bert --text reviews.csv --label-column stars -n 200 --null none

        attnprobe probe alignment hf:models/vit --images photos

    Per layer, head and named direction: the mean projection of each loss's gradient with its interval, t, the label
    gradient's null under shuffled labels, how large its part that depends on labels could be beside reconstruction (in
    all heads along a direction at once), how many sequences it takes to detect the direction, and whether the
    arrangement of the data along the positions drives the reconstruction gradient: its rank among --orders random
    orders of the positions, of the same model on the same data. Few orders give a small q only where many heads and
    directions stand out together; the verdict says how many it takes, and with how many orders one would be enough.

    Reconstruction of a Hugging Face model is that of its next, or its hidden, tokens or patches (by a fresh readout
    where it has no head for patches); its label loss is that of a readout drawn anew from the mean of its last states.
    """
    from attnprobe.probes.alignment import FIELDS
    from attnprobe.report import verdicts
    from attnprobe.report.alignment_figures import draw_alignments

    options = {"shuffles": shuffles, "null": null, "orders": orders, "power": power}
    found = request.measure_each(
        checkpoints, lambda opened, report: measure_alignment(request, opened, change_to, along, options, report)
    )
    return Findings(
        records=found.records(*FIELDS),
        table=TABLE,
        verdict=verdicts.alignment,
        results=found.results,
        captures=found.captures(),
        draw=lambda name: draw_alignments(found.results, name),
    )


def measure_alignment(
    request: Request,
    opened: Opened,
    change_to: Path | None,
    along: AlongName,
    options: dict[str, Any],
    progress: "Progress",
) -> "Alignment":
    from attnprobe.capture import ours
    from attnprobe.probes.alignment.change import change_of_scores
    from attnprobe.probes.alignment.probe import measure
    from attnprobe.scores.named import named_directions
    from attnprobe.training.saved.checkpoint import load_checkpoint

    subject = opened.subject(seed=request.seed)
    directions = named_directions(subject.space, along=along.value, seed=request.seed)
    common = {"seed": request.seed, "progress": progress} | request.sampling()
    if change_to is not None:
        if not isinstance(opened, OpenedCheckpoint):
            raise ConfigError(f"--change-to knows no changes of {opened.path}", hint="leave it out")
        goal = load_checkpoint(change_to).make_model().to(next(opened.model.parameters()).device)
        directions.append(change_of_scores(subject, ours.of(goal, opened.split), **common))
    null = options["null"] or usual_null(request, opened, subject)
    return measure(subject, directions=directions, level=request.level, **options | {"null": null.value}, **common)


def usual_null(request: Request, opened: Opened, subject: "Subject") -> NullName:
    """Random orders, where sequences have enough positions in common; else it is said that there is no null."""
    from attnprobe.probes.alignment.arrangement import movable_enough

    if movable_enough(subject, subject.draw(request.sequences, request.seed)):
        return NullName.positions
    why = "sequences differ too much in length to be put in random orders, so reconstruction is compared with no null"
    say(f"{opened.label}: {why} (--null phase asks otherwise)", quiet=request.quiet)
    return NullName.none


command = make_command(alignment, further=("offsets", "cosines"), figure_each=True, needs="both", split=SplitName.train)
