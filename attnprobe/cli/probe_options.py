"""Options that the probes share."""

import math
from pathlib import Path
from typing import Annotated

import typer

from attnprobe.cli.checkpoints import SplitName


def finite(value: float | None) -> float | None:
    """Ranges let nan pass, and some of them inf."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.pt) of ours; several are compared.")]
OnSplit = Annotated[SplitName, typer.Option(help="Data to measure on.")]
Sequences = Annotated[int, typer.Option("--sequences", "-n", min=2, help="Sequences to measure on.")]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, callback=finite, help="Coverage of the intervals.")]
MemoryLimit = Annotated[
    float, typer.Option(min=0.001, callback=finite, help="Peak memory to stay under, beside model and data; GiB.")
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write tidy rows.", show_default=False)]
Npz = Annotated[Path | None, typer.Option("--npz", help="Write arrays with named axes.", show_default=False)]
Figure = Annotated[
    Path | None,
    typer.Option(
        help="Draw into NAME (.png or .pdf; without an ending both). Further figures are NAME_<what>.",
        metavar="NAME",
        show_default=False,
    ),
]

GIBIBYTE = 2**30
