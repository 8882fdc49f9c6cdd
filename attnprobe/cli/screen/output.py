"""Where words go: data to stdout, everything else to stderr, plain when nobody watches."""

import contextlib
import io
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from attnprobe.cli.screen.tables import layout, wrap
from attnprobe.errors import AttnprobeError
from attnprobe.files import to_json

CHECK_FAILED = 5  # exit code
FILE_WIDTH = 200  # of tables that go into files and pipes, which have no width of their own
SENTENCE_WIDTH = 100

for size in ("COLUMNS", "LINES"):
    if not re.fullmatch("[0-9]{1,4}", os.environ.get(size, "0")):  # rich would read it, and break
        del os.environ[size]
console = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def finite(value: float | None) -> float | None:
    """Of options that are numbers: ranges let nan pass, and some of them inf."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


# Options that mean the same in every command.
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout, for machines.")]
Full = Annotated[bool, typer.Option("--full", help="Show all rows and columns, not only the main ones.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables, only errors.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option(envvar="ATTNPROBE_DEVICE", help="auto, cpu, cuda or cuda:N. auto takes a GPU if there is one.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the task's original data files.", show_default=False)]


def prepare_streams() -> None:
    """Characters that an output cannot hold are escaped; a closed output refuses words like a full disk would."""
    if sys.stdout is None:  # the shell's >&-; what opens its number here keeps others from writing into their files
        sys.stdout = open(os.devnull)  # noqa: SIM115 - for reading only, as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.writable():
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """What is still buffered cannot be written; without this the interpreter would complain again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Any) -> None:
    """One strict JSON document on stdout."""
    sys.stdout.write(to_json(document) + "\n")


def print_error(error: AttnprobeError) -> None:
    console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    if error.hint:
        console.print(f"[dim]hint:[/]  {escape(error.hint)}", soft_wrap=True)


def print_table(title: str, columns: list[str], rows: list[list[str]], *, numeric_from: int = 1, keys: int = 1) -> None:
    """A table for people, on stdout, never wider than the terminal.

    What finds no room beside the rest stands in a further table below, with the first ``keys`` columns again.
    """
    stdout.out(*wrap(title, stdout_width()), sep="\n", style="bold")
    for number, lines in enumerate(layout(columns, rows, stdout_width(), keys=keys, numeric_from=numeric_from)):
        stdout.out(*([""] if number else []), *lines, sep="\n")


def print_verdict(text: str) -> None:
    """What a table says, in sentences below it, on stdout."""
    stdout.out("", *wrap(text, min(stdout_width(), SENTENCE_WIDTH)), sep="\n")


def stdout_width() -> int:
    """Of the terminal, or what $COLUMNS says; of files and pipes 200."""
    return stdout.width if stdout.is_terminal else int(os.environ.get("COLUMNS") or 0) or FILE_WIDTH


def say(text: str, *, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        console.print(escape(text), soft_wrap=True)


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Any]:
    """Yields ``report(done, total)``; a bar on a terminal, nothing elsewhere."""
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2))
    bar_of_any_width = BarColumn(bar_width=None, table_column=Column(ratio=3))
    columns = (name, bar_of_any_width, MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        bar = progress.add_task(escape(label), total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
