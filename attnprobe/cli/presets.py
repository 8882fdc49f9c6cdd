"""attnprobe presets: what can be trained by name."""

from typing import Annotated

import typer

from attnprobe.cli.output import Json, print_json, print_table, stdout


def presets(
    name: Annotated[str | None, typer.Argument(help="Print this preset's settings, to be copied and edited.")] = None,
    json: Json = False,
) -> None:
    """List the named runs, or print one of them as TOML.

    Examples:

        attnprobe presets

        attnprobe presets textures > mine.toml
    """
    import tomli_w

    from attnprobe import run

    if name is not None:
        table = run.to_table(run.from_table(run.read_table(name)))
        if json:
            print_json(table)
        else:
            stdout.out(tomli_w.dumps(table), end="")
    elif json:
        print_json(run.presets())
    else:
        print_table("presets", ["name", "what it is"], [list(item) for item in run.presets().items()], numeric_from=2)
