"""What the commands of a study have in common."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.completion import complete_run_setting
from attnprobe.cli.train.seeds import parse_seeds
from attnprobe.errors import ConfigError

if TYPE_CHECKING:
    from attnprobe.studies.request import Request


def complete_studies(incomplete: str) -> Iterator[str]:
    from attnprobe.studies.plan.reading import names

    yield from (name for name in names() if name.startswith(incomplete))


STUDIES = Path("studies")
Name = Annotated[
    str,
    typer.Argument(help="A study's name (see attnprobe study list) or a .toml file.", autocompletion=complete_studies),
]
ScaleName = Annotated[
    str | None, typer.Option("--scale", help="How large: one of the study's scales.", show_default="its first")
]
Seeds = Annotated[
    str | None,
    typer.Option(help="Of every arm: a number (5 = 0..4) or a list (0,3,7).", show_default="as the scale says"),
]
RunSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change a setting of every run, e.g. -s finetune.epochs=20. Repeatable.",
        autocompletion=complete_run_setting,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of all studies, which share their runs there.")]


def requested(name: str, scale: str | None, seeds: str | None, settings: Sequence[str] | None, out: Path) -> "Request":
    """What these options ask for; ConfigError if the study or its settings make no sense."""
    from attnprobe.config import environment_assignments
    from attnprobe.studies.request import request

    if any(setting.partition("=")[0].strip() == "seed" for setting in settings or ()):
        raise ConfigError("-s seed=... is no setting of a study, whose runs differ in it", hint="write --seeds 0,3,7")
    numbers = None if seeds is None else parse_seeds(seeds)
    return request(name, scale=scale, seeds=numbers, settings=[*environment_assignments(), *(settings or [])], out=out)
