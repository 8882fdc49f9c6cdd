"""attnprobe presets: what can be trained by name."""

from typing import Annotated

import typer

from attnprobe.cli.completion import complete_presets
from attnprobe.cli.screen.output import Json, print_json, print_table, stdout


def presets(
    name: Annotated[
        str | None,
        typer.Argument(help="Print this preset's settings, to be copied and edited.", autocompletion=complete_presets),
    ] = None,
    json: Json = False,
) -> None:
    """List the named runs, or print one of them as TOML.

    Examples:

        attnprobe presets

        attnprobe presets textures > mine.toml
    """
    import tomli_w

    from attnprobe.presets import descriptions, read_table

    if name is not None:
        table = read_table(name)
        from attnprobe import run  # loads torch, which takes seconds; a misspelt name is told before

        settings = run.to_table(run.from_table(table))
        if json:
            print_json(settings)
        else:
            stdout.out(tomli_w.dumps(settings), end="")
    elif json:
        print_json(descriptions())
    else:
        print_table("presets", ["name", "what it is"], [list(item) for item in descriptions().items()], numeric_from=2)
