"""attnprobe probe alignment: label against reconstruction gradients along attention-score directions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import Checkpoints
from attnprobe.cli.probe.table import Column, Record, Table, estimate, interval, number, probability
from attnprobe.opening import OpenedCheckpoint, SplitName

if TYPE_CHECKING:
    from attnprobe.probes.alignment.probe import Alignment
    from attnprobe.probes.sequences import Progress

MAIN = ("proximity r=2", "change", "change by offset")  # the directions that are shown without --full


def band(row: Record) -> str:
    return f"[{number(row['low'], '+.1f')}, {number(row['high'], '+.1f')}]"


def count(row: Record) -> str:
    """A sample size rounded up; beyond a million it only says that nothing is to be seen."""
    size = row["estimate"]
    return "> 1,000,000" if size is None or size >= 1e6 else f"{math.ceil(size):,}"


def column(heading: str, quantity: str, text: Callable[[Record], str], *, full: bool = False) -> Column:
    return Column(heading=heading, where={"quantity": quantity}, text=text, full=full)


TABLE = Table(
    title="gradients along score directions",
    keys=("checkpoint", "direction", "layer", "head"),
    columns=(
        column("label t", "label.t", estimate("+.1f")),
        column("labels' part q", "label.dependent.mean", probability("q_value")),
        column("reconstruction t", "reconstruction.t", interval("+.1f")),
        column("shuffled labels t", "label.t.null", band),
        column("labels' part p", "label.dependent.mean", probability("p_value"), full=True),
        column("labels' part: sequences to detect", "label.dependent.sequences", count, full=True),
        column("reconstruction p", "reconstruction.mean", probability("p_value"), full=True),
        column("p among shuffled profiles", "reconstruction.specificity", probability("p_value"), full=True),
        column("reconstruction: sequences to detect", "reconstruction.sequences", count, full=True),
    ),
    wanted=lambda row: row["direction"] in MAIN,
    ranked_by="reconstruction.t",
)


def alignment(
    request: Request,
    checkpoints: Checkpoints,
    change_to: Annotated[
        Path | None,
        typer.Option(help="Also project on the change of scores towards this checkpoint.", show_default=False),
    ] = None,
    shuffles: Annotated[
        int, typer.Option(min=19, max=99_999, help="Draws of the nulls: shuffled labels, shuffled profiles.")
    ] = 999,
) -> Findings:
    """Do labels pull the attention scores where reconstruction pulls them, and can labels be heard there at all?

    Examples:

        attnprobe probe alignment runs/textures-s0/checkpoints/init.pt

        attnprobe probe alignment init.pt --change-to pretrained.pt --figure alignment

        attnprobe probe alignment runs/textures-s0/checkpoints/*.pt --csv alignment.csv

    Per layer, head and named direction: the mean projection of each loss's gradient with its interval, t, the label
    gradient's null under shuffled labels, how many sequences it takes to detect the direction, and the p-value of the
    reconstruction gradient's rank among shuffles of the direction's profile (--shuffles of them).
    """
    from attnprobe.report import verdicts
    from attnprobe.report.alignment_figures import draw_alignments

    found = request.measure_each(
        checkpoints, lambda opened, report: measure_alignment(request, opened, change_to, shuffles, report)
    )
    return Findings(
        records=found.records("direction"),
        table=TABLE,
        verdict=verdicts.alignment,
        results=found.results,
        draw=lambda name: draw_alignments(found.results, name),
    )


def measure_alignment(
    request: Request, opened: OpenedCheckpoint, change_to: Path | None, shuffles: int, progress: "Progress"
) -> "Alignment":
    from attnprobe.capture import ours
    from attnprobe.probes.alignment.change import change_of_scores
    from attnprobe.probes.alignment.probe import measure
    from attnprobe.scores.directions import named_directions
    from attnprobe.training.saved.checkpoint import load_checkpoint

    subject = opened.subject(seed=request.seed)
    directions = named_directions(subject.space, seed=request.seed)
    common = {"seed": request.seed, "progress": progress} | request.sampling()
    if change_to is not None:
        goal = load_checkpoint(change_to).make_model().to(next(opened.model.parameters()).device)
        directions.append(change_of_scores(subject, ours.of(goal, opened.split), **common))
    return measure(subject, directions=directions, shuffles=shuffles, level=request.level, **common)


command = make_command(alignment, further=("offsets", "cosines"), figure_each=True, split=SplitName.train)
