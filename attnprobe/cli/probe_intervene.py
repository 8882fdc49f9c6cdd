"""attnprobe probe intervene: does the model have proximity bias, or need it?"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.checkpoints import Opened, SplitName, open_checkpoint
from attnprobe.cli.output import DataDir, Device, Json, Quiet, Seed, print_table, progress_bar
from attnprobe.cli.probe_checks import check_outputs, note_sequences
from attnprobe.cli.probe_options import GIBIBYTE, Csv, Figure, Level, MemoryLimit, Npz, OnSplit, Sequences
from attnprobe.cli.tidy import deliver
from attnprobe.errors import ConfigError

if TYPE_CHECKING:
    from attnprobe.probes.interventions import DoseResponse, InterventionRow


def intervene(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.pt) of ours.")],
    doses: Annotated[
        str, typer.Option(help="Multiples of the model's own offset profile to add.")
    ] = "-1,-0.5,0,0.5,1,2",
    profile_of: Annotated[
        Path | None, typer.Option(help="Clamp: also replace the profile by this checkpoint's.", show_default=False)
    ] = None,
    swap: Annotated[
        Path | None, typer.Option(help="Also exchange W_Q and W_K with this checkpoint.", show_default=False)
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Only these layers, e.g. 0,2.", show_default="all")] = None,
    heads: Annotated[str | None, typer.Option(help="Only these heads, e.g. 1,3.", show_default="all")] = None,
    controls: Annotated[int, typer.Option(min=1, help="Shuffled profiles to average over.")] = 5,
    sequences: Sequences = 1000,
    split: OnSplit = SplitName.test,
    level: Level = 0.95,
    memory_limit: MemoryLimit = 2.0,
    seed: Seed = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    csv: Csv = None,
    npz: Npz = None,
    figure: Figure = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add the model's own offset profile to its scores, remove it, or replace it, and watch its accuracy.

    Examples:

        attnprobe probe intervene runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe intervene finetuned.pt --doses=-1,0,1 --figure dose

        attnprobe probe intervene scratch.pt --profile-of finetuned.pt --swap finetuned.pt

    Dose -1 removes the profile, 0 leaves the model alone. The control adds the same values permuted over the offsets.
    """
    from attnprobe.probes.statistics import rows_to_records

    check_outputs([p for p in (checkpoint, profile_of, swap) if p is not None], csv=csv, npz=npz, figure=figure)
    asked = Asked(
        doses=numbers(doses, "--doses"),
        layers=whole_numbers(layers, "--layers"),
        heads=whole_numbers(heads, "--heads"),
        controls=controls,
        sequences=sequences,
        level=level,
        memory_limit=round(memory_limit * GIBIBYTE),
        seed=seed,
    )
    opened, donor, other = (
        None if path is None else open_checkpoint(path, split=split, device=device, data_dir=data_dir)
        for path in (checkpoint, profile_of, swap)
    )
    assert opened is not None
    note_sequences(opened, sequences, quiet=quiet)
    with progress_bar(opened.label, quiet=quiet or json) as report:
        response, rows = measure_interventions(opened, donor, other, asked, report)
    if not (json or quiet):
        show(rows, opened.label)
    figures = draw(response, figure) if figure is not None else []
    arrays = {opened.label: response.arrays()} if npz is not None else {}
    records = [opened.origin() | record for record in rows_to_records(rows, str(checkpoint), "kind", "dose")]
    deliver([checkpoint], records, arrays, figures, csv=csv, npz=npz, json=json, quiet=quiet)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The options that say what to do, read and checked."""

    doses: list[float]
    layers: list[int] | None
    heads: list[int] | None
    controls: int
    sequences: int
    level: float
    memory_limit: int  # bytes
    seed: int


def measure_interventions(
    opened: Opened,
    donor: Opened | None,
    other: Opened | None,
    asked: Asked,
    progress: Callable[[int, int], None],
) -> "tuple[DoseResponse, list[InterventionRow]]":
    """The dose response, clamped to the profile of ``donor`` too, and all rows with those of a swap with ``other``."""
    import numpy as np

    from attnprobe.probes.intervention_profiles import offset_profile_of
    from attnprobe.probes.interventions import dose_response, swap_response

    objective, generator = opened.checkpoint.objective(), np.random.default_rng(asked.seed)
    n, limit, seed = asked.sequences, asked.memory_limit, asked.seed
    given = None
    if donor is not None:
        given = offset_profile_of(donor.model, donor.split, n=n, memory_limit=limit, seed=seed)
    response = dose_response(
        opened.model,
        opened.split,
        objective=objective,
        doses=asked.doses,
        given=given,
        layers=asked.layers,
        heads=asked.heads,
        controls=asked.controls,
        n=n,
        level=asked.level,
        memory_limit=limit,
        seed=seed,
        generator=generator,
        progress=progress,
    )
    if other is None:
        return response, response.rows
    swapped = swap_response(
        opened.model,
        other.model,
        opened.split,
        objective=objective,
        layers=asked.layers,
        n=n,
        level=asked.level,
        memory_limit=limit,
        seed=seed,
        generator=generator,
    )
    return response, [*response.rows, *swapped]


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


def show(rows: "list[InterventionRow]", label: str) -> None:
    quantities = list(dict.fromkeys(row.quantity for row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        interval = row.interval
        dose = "" if row.dose is None else f"{row.dose:g}"
        line = lines.setdefault((row.kind, dose), {})
        line[row.quantity] = f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    cells = [[kind, dose, *(line.get(q, "") for q in quantities)] for (kind, dose), line in lines.items()]
    print_table(f"interventions on the offset profile of the scores: {label}", ["kind", "dose", *quantities], cells)


def draw(response: "DoseResponse", stem: Path) -> list[Path]:
    from attnprobe.report.intervention_figures import draw_dose_response

    return draw_dose_response(response, stem)
