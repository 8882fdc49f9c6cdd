"""Where words go: data to stdout, everything else to stderr, plain when nobody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attnprobe.errors import AttnprobeError
from attnprobe.files import to_json

CHECK_FAILED = 5  # exit code

console = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

# Options that mean the same in every command.
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables, only errors.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option(envvar="ATTNPROBE_DEVICE", help="auto, cpu, cuda or cuda:N. auto takes a GPU if there is one.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the task's original data files.", show_default=False)]


def print_json(document: Any) -> None:
    """One strict JSON document on stdout."""
    sys.stdout.write(to_json(document) + "\n")


def print_error(error: AttnprobeError) -> None:
    console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
    if error.hint:
        console.print(f"[dim]hint:[/]  {_escape(error.hint)}", soft_wrap=True)


def print_table(title: str, columns: list[str], rows: list[list[str]], *, numeric_from: int = 1) -> None:
    """A table for people, on stdout."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number >= numeric_from else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_escape, row))
    (stdout if stdout.is_terminal else Console(width=200, highlight=False)).print(table)


def say(text: str, *, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        console.print(_escape(text), soft_wrap=True)


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Any]:
    """Yields ``report(done, total)``; a bar on a terminal, nothing elsewhere."""
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
