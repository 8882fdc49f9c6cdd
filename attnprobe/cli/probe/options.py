"""Options that the probes share: each probe has them all but those it says it has no use for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attnprobe.cli.screen.output import DataDir, Device, Full, Json, Quiet, Seed, finite
from attnprobe.opening import SplitName

OneModel = Annotated[Path, typer.Argument(help="A checkpoint (.pt) of ours, or hf:FOLDER of a Hugging Face model.")]
Models = Annotated[
    list[Path],
    typer.Argument(help="Checkpoints (.pt) of ours, or hf:FOLDER of Hugging Face models; several are compared."),
]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.pt) of ours; several are compared.")]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, callback=finite, help="Coverage of the intervals.")]
MemoryLimit = Annotated[
    float,
    typer.Option(min=0.001, max=1e6, callback=finite, help="Peak memory to stay under, beside model and data; GiB."),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        help="Draw into NAME (.png or .pdf; without an ending both). Further figures are NAME_<what>.",
        metavar="NAME",
        show_default=False,
    ),
]

SHARED: dict[str, tuple[Any, Any]] = {  # name -> type, default
    "sequences": (Annotated[int, typer.Option("--sequences", "-n", min=2, help="Sequences to measure on.")], 500),
    "split": (Annotated[SplitName, typer.Option(help="Data to measure on.")], SplitName.test),
    "level": (Level, 0.95),
    "memory_limit": (MemoryLimit, 2.0),
    "seed": (Seed, 0),
    "device": (Device, "auto"),
    "data_dir": (DataDir, None),
    "csv": (Annotated[Path | None, typer.Option(help="Write tidy rows.", show_default=False)], None),
    "npz": (Annotated[Path | None, typer.Option(help="Write arrays with named axes.", show_default=False)], None),
    "figure": (Figure, None),
    "full": (Full, False),
    "json": (Json, False),
    "quiet": (Quiet, False),
}

FOREIGN = "Models of Hugging Face"  # a panel of the help


def _foreign(help: str, *, least: int | None = None) -> Any:
    return typer.Option(help=help, min=least, rich_help_panel=FOREIGN, show_default=False)


FOREIGN_OPTIONS: dict[str, tuple[Any, Any]] = {  # of probes that take hf:...
    "text": (Annotated[Path | None, _foreign("Run on a plain text, in blocks, or on the rows of a table.")], None),
    "images": (Annotated[Path | None, _foreign("Run on a folder of images, or of folders of images.")], None),
    "text_column": (Annotated[str | None, _foreign("The table's column of texts (text, sentence or content).")], None),
    "label_column": (Annotated[str | None, _foreign("The table's column of classes.")], None),
    "limit": (Annotated[int | None, _foreign("Read at most so many sequences.", least=2)], None),
    "max_length": (Annotated[int | None, _foreign("Positions of a block or of the longest row (128).", least=4)], None),
    "batch_size": (Annotated[int | None, _foreign("Sequences in a pass, at most.", least=1)], None),
    "only": (Annotated[str, _foreign("Modules whose attention counts, such as 'encoder.*' (all).")], "*"),
    "download": (
        Annotated[bool, typer.Option("--allow-download", help="Fetch hf:ID from the hub.", rich_help_panel=FOREIGN)],
        False,
    ),
}
