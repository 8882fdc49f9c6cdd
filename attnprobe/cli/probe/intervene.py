"""attnprobe probe intervene: does the model have proximity bias, or need it?"""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.probe.driver import Findings, Request, make_command
from attnprobe.cli.probe.options import OneModel
from attnprobe.cli.probe.table import Column, Table, interval, tested
from attnprobe.errors import ConfigError
from attnprobe.opening import Opened, OpenedCheckpoint

if TYPE_CHECKING:
    from attnprobe.capture.subject import Subject
    from attnprobe.probes.interventions.probe import DoseResponse
    from attnprobe.probes.sequences import Progress

TABLE = Table(
    title="interventions on the offset profile of the scores",
    keys=("kind", "dose"),
    columns=tuple(
        Column(heading=quantity.replace(".", "\n"), where={"quantity": quantity}, text=interval(digits))
        for quantity, digits in (
            ("accuracy", ".3f"),
            ("accuracy.change", "+.3f"),
            ("loss", ".3f"),
            ("loss.change", "+.3f"),
        )
    )
    + tuple(
        Column(
            heading=f"p of\n{name}",
            where={"quantity": f"{name}.change"},
            text=tested("p_value"),
        )
        for name in ("accuracy", "loss")
    ),
)


def intervene(
    request: Request,
    checkpoint: OneModel,
    doses: Annotated[
        str, typer.Option(help="Multiples of the model's own offset profile to add.")
    ] = "-1,-0.5,0,0.5,1,2",
    profile_of: Annotated[
        Path | None,
        typer.Option(
            help="Also add this checkpoint's profile (injected), and put it in place of the own one (clamp).",
            show_default=False,
        ),
    ] = None,
    swap: Annotated[
        Path | None, typer.Option(help="Also exchange W_Q and W_K with this checkpoint.", show_default=False)
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Only these layers, e.g. 0,2.", show_default="all")] = None,
    heads: Annotated[str | None, typer.Option(help="Only these heads, e.g. 1,3.", show_default="all")] = None,
    controls: Annotated[
        int, typer.Option(min=2, help="Shuffled profiles at every dose; the time goes with their number.")
    ] = 20,
) -> Findings:
    """Add the model's own offset profile to its scores, remove it, or replace it, and watch its accuracy.

    Examples:

        attnprobe probe intervene runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe intervene finetuned.pt --doses=-1,0,1 --figure dose

        attnprobe probe intervene scratch.pt --profile-of finetuned.pt --swap finetuned.pt

        attnprobe probe intervene hf:models/pythia-70m --text book.txt -n 50 --doses=-1,0,1 --controls 5

    Dose -1 removes the profile, 0 leaves the model alone. The control adds the same values permuted over the offsets,
    and "own - shuffled" is the difference, with the draw of the controls in its interval. The model is run once for
    every control at every dose: 106 times by default. Accuracy and loss are those of the labels, or of the next (or
    the hidden) tokens or patches of a Hugging Face model; a classifier of images is asked for the labels.
    """
    from attnprobe.report import verdicts
    from attnprobe.report.intervention_figures import draw_dose_response

    options = {
        "doses": numbers(doses, "--doses"),
        "layers": whole_numbers(layers, "--layers"),
        "heads": whole_numbers(heads, "--heads"),
        "controls": controls,
    }
    found = request.measure_each(
        [checkpoint],
        lambda opened, report: measure_interventions(request, opened, profile_of, swap, options, report),
    )
    return Findings(
        records=found.records("kind", "dose", "controls"),
        table=TABLE,
        verdict=verdicts.intervene,
        results=found.results,
        captures=found.captures(),
        draw=lambda name: [path for response in found.results.values() for path in draw_dose_response(response, name)],
    )


def measure_interventions(
    request: Request,
    opened: Opened,
    profile_of: Path | None,
    swap: Path | None,
    options: dict[str, Any],
    progress: "Progress",
) -> "DoseResponse":
    """The dose response, clamped to the profile of another checkpoint too, with the rows of a swap with another."""
    from attnprobe.probes.interventions.probe import dose_response, swap_response
    from attnprobe.probes.interventions.profiles import offset_profile

    subject = opened.subject(seed=request.seed)
    donor, other = (None if path is None else request.opener.open_any(path) for path in (profile_of, swap))
    common = {"seed": request.seed, "progress": progress} | request.sampling()
    given = None
    if donor is not None:
        source = donor.subject()
        samples = source.draw(request.sequences, request.seed)
        check_same_geometry(donor, source, subject)
        given = offset_profile(source, samples, memory_limit=common["memory_limit"], progress=progress)
    common["level"] = request.level
    loss = opened.own_loss(subject)
    response = dose_response(subject, loss=loss, given=given, **options, **common)
    if other is None:
        return response
    if isinstance(other, OpenedCheckpoint) and isinstance(opened, OpenedCheckpoint):
        other = dataclasses.replace(other, split=opened.split)
    second = other.subject(seed=request.seed)
    swapped = swap_response(subject, second, loss=loss, layers=options["layers"], **common)
    return dataclasses.replace(response, rows=[*response.rows, *swapped])


def check_same_geometry(donor: Opened, source: "Subject", subject: "Subject") -> None:
    """ConfigError if offsets, layers or heads of a donor of a profile are not those of the model it is meant for."""
    there, here = (
        {"layers": s.shape[0], "heads": s.shape[1], "positions": s.space.layout.shape, "causal": s.space.layout.causal}
        for s in (source, subject)
    )
    for what, value in there.items():
        if value != here[what]:
            reason = f"--profile-of {donor.path} has {what} {value}, this model has {here[what]}"
            raise ConfigError(reason, hint="take a checkpoint of the same layers, heads, positions and causality")


def whole_numbers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    found = numbers(text, option)
    if any(number != int(number) or number < 0 for number in found):
        raise ConfigError(f"{option} {text!r} is no list of layers or heads", hint=f"write {option}=0,2")
    return [int(number) for number in found]


def numbers(text: str, option: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)) or len(set(found)) < len(found):
        raise ConfigError(f"{option} {text!r} is no list of different numbers", hint=f"write {option}=1,2")
    return found


command = make_command(intervene, needs="reconstruction", sequences=1000)
