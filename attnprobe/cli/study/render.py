"""attnprobe study render: tables and figures of a study, from what exists of its runs."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnprobe.cli.screen.output import Json, Quiet, print_json, print_table, say
from attnprobe.cli.study.options import STUDIES, Name, Out, RunSettings, ScaleName, Seeds, requested

if TYPE_CHECKING:
    from attnprobe.studies.request import Request


def render(
    name: Name,
    scale: ScaleName = None,
    seeds: Seeds = None,
    settings: RunSettings = None,
    out: Out = STUDIES,
    to: Annotated[
        Path | None, typer.Option(help="Folder for tables and figures.", show_default="OUT/NAME-SCALE")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a study's tables and figures from what there is of its runs; what is missing is marked.

    results.csv has a row per run and number, cells.csv one per place with mean, interval, n and what it gains, table.md
    and table.tex (booktabs) the tables beside the papers' numbers, manifest.json what they rest on; figures are PNG and
    PDF. A difference is bold only if the interval that holds for all comparisons of its table excludes zero.

    Examples:

        attnprobe study render qk-transfer --scale smoke

        attnprobe study render when-it-pays --seeds 5 --to figures

        attnprobe study render mine.toml --out mine --json

    Files that attnprobe did not write are never replaced.
    """
    asked = requested(name, scale, seeds, settings, out)
    folder = to if to is not None else out / f"{asked.name}-{asked.scale}"
    files = write_answer(asked, folder, show=not (json or quiet), quiet=quiet or json)
    if json:
        found = asked.outcomes()
        runs = {"asked for": len(found), "found": sum(bool(outcome.numbers) for outcome in found)}
        print_json({"study": asked.name, "scale": asked.scale, "runs": runs, "files": [str(file) for file in files]})


def write_answer(asked: "Request", folder: Path, *, show: bool, quiet: bool) -> list[Path]:
    """Tables and figures from what there is; returns the files. show: print the tables, too."""
    from attnprobe.report.studies.pages import plain
    from attnprobe.report.studies.render import Answer, coverage, render, sheets_of

    answer = Answer(
        name=asked.name,
        scale=asked.scale,
        study=asked.study,
        outcomes=asked.outcomes(),
        command=shlex.join(["attnprobe", *sys.argv[1:]]),
    )
    files = render(answer, folder, warn=lambda text: say(text, quiet=quiet))
    if not show:
        return files
    for sheet in sheets_of(answer):
        print_table(f"\n{sheet.title}", list(sheet.head), [[plain(e) for e in line] for line in sheet.lines],
                    numeric_from=sheet.labels, keys=sheet.labels)  # fmt: skip
    say(f"{coverage(answer)}; written: {', '.join(str(file) for file in files)}")
    return files
