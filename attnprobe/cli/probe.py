"""attnprobe probe: measurements on checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprobe.cli.checkpoints import SplitName, labels, open_checkpoint
from attnprobe.cli.output import DataDir, Device, Json, Quiet, Seed, print_json, print_table, progress_bar, say
from attnprobe.cli.tidy import write_arrays, write_csv

if TYPE_CHECKING:
    from attnprobe.probes.proximity import Proximity

probe_app = typer.Typer(name="probe", help="Measure attention in checkpoints.", no_args_is_help=True)

Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.pt) of ours; several are compared.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write tidy rows.", show_default=False)]
Npz = Annotated[Path | None, typer.Option("--npz", help="Write arrays with named axes.", show_default=False)]
Figure = Annotated[Path | None, typer.Option(help="Draw figures (PNG and PDF) with this stem.", show_default=False)]
Sequences = Annotated[int, typer.Option("-n", "--sequences", min=2, help="Sequences to measure on.")]
MemoryLimit = Annotated[float, typer.Option(min=0.001, help="Peak memory to stay under, GiB.")]


@probe_app.callback()
def probe() -> None:
    pass  # with a single command Typer would drop its name


@probe_app.command()
def proximity(
    checkpoints: Checkpoints,
    radius: Annotated[
        float | None, typer.Option(min=0.0, help="Near means up to here; pixels or positions.", show_default="1.5 or 3")
    ] = None,
    sequences: Sequences = 500,
    split: Annotated[SplitName, typer.Option(help="Data to measure on.")] = SplitName.test,
    without_self: Annotated[bool, typer.Option("--without-self", help="Leave each position's own key out.")] = False,
    permutations: Annotated[int, typer.Option(min=19, help="Draws of the null that permutes key positions.")] = 999,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")] = 0.95,
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
    """How strongly do pre-softmax QK scores prefer near keys, per layer and head?

    Examples:

        attnprobe probe proximity runs/textures-s0/checkpoints/finetuned.pt

        attnprobe probe proximity runs/textures-s0/checkpoints/*.pt --figure proximity

        attnprobe probe proximity ckpt.pt --radius 2 --csv rows.csv --json

    proximity_bias is the mean row-centred score of near pairs minus that of the others, in standard deviations of the
    scores, with a bootstrap interval over sequences and a p-value against permuted key positions.
    """
    from attnprobe.probes.statistics import rows_to_records

    found = {}
    for path, label in zip(checkpoints, labels(checkpoints), strict=True):
        found[label] = measure_proximity(
            path,
            radius=radius,
            sequences=sequences,
            split=split,
            include_self=not without_self,
            permutations=permutations,
            level=level,
            memory_limit=memory_limit,
            seed=seed,
            device=device,
            data_dir=data_dir,
            quiet=quiet or json,
        )
    records = [
        record
        for path, result in zip(checkpoints, found.values(), strict=True)
        for record in rows_to_records(result.rows, str(path))
    ]
    if csv is not None:
        write_csv(csv, records)
    if npz is not None:
        write_arrays(npz, {label: result.arrays for label, result in found.items()})
    figures = draw_proximity(found, figure) if figure is not None else []
    if json:
        print_json(
            {"checkpoints": [str(p) for p in checkpoints], "rows": records, "figures": [str(path) for path in figures]}
        )
    elif not quiet:
        show_proximity(found)
        for path in figures:
            say(f"figure: {path}")


def measure_proximity(
    path: Path,
    *,
    radius: float | None = None,
    sequences: int = 500,
    split: SplitName = SplitName.test,
    include_self: bool = True,
    permutations: int = 999,
    level: float = 0.95,
    memory_limit: float = 2.0,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    quiet: bool = True,
) -> "Proximity":
    import numpy as np

    from attnprobe.probes.proximity import measure

    opened = open_checkpoint(path, split=split, device=device, data_dir=data_dir)
    with progress_bar(str(path), quiet=quiet) as report:
        return measure(
            opened.model,
            opened.split,
            radius=radius,
            n=sequences,
            level=level,
            permutations=permutations,
            include_self=include_self,
            memory_limit=round(memory_limit * 2**30),
            generator=np.random.default_rng(seed),
            progress=report,
        )


def draw_proximity(found: "dict[str, Proximity]", stem: Path) -> list[Path]:
    from attnprobe.report.figures import draw_maps, draw_profiles

    figures = draw_profiles(found, stem.with_name(f"{stem.name}_profiles"))
    if all(result.grid is not None for result in found.values()):
        figures += draw_maps(found, stem.with_name(f"{stem.name}_maps"))
    return figures


def show_proximity(found: "dict[str, Proximity]") -> None:
    """One line per checkpoint, layer and head; each quantity with its interval."""
    quantities: list[str] = []
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for label, result in found.items():
        for row in result.rows:
            if row.quantity not in quantities:
                quantities.append(row.quantity)
            interval = row.interval
            text = f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
            line = cells.setdefault((label, row.layer, row.head), {})
            line[row.quantity] = text
            if row.p_value is not None:
                line["p"] = f"{row.p_value:.3g}"
    units = {row.quantity: row.interval.unit for result in found.values() for row in result.rows}
    columns = ["checkpoint", "layer", "head"]
    for quantity in quantities:
        columns += [f"{quantity}\n({units[quantity]})"] + (["p"] if quantity == "proximity_bias" else [])
    lines = []
    for (label, layer, head), line in cells.items():
        values = []
        for quantity in quantities:
            values += [line.get(quantity, "")] + ([line.get("p", "")] if quantity == "proximity_bias" else [])
        lines.append([label, str(layer), str(head), *values])
    print_table("proximity of pre-softmax scores", columns, lines)
