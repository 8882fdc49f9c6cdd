"""Asking before a download, and saying how far it is."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.cli.screen.output import progress_bar, say
from attnprobe.errors import RunError

if TYPE_CHECKING:
    from attnprobe.tasks.sources.catalogue import Source

MEGABYTE = 1_000_000

Report = Callable[[int, int | None], None]


def download(name: str, source: "Source", data_dir: Path | None, *, yes: bool, quiet: bool) -> None:
    """Bring what is absent or wrong; an archive that the person keeps elsewhere is taken as it is."""
    from attnprobe.tasks.sources.copies import status
    from attnprobe.tasks.sources.download import destination, fetch, needed

    folder = destination(source, data_dir)
    elsewhere = not any((folder / file.name).exists() for file in source.files)
    if (status(name, data_dir) == "packed" and elsewhere) or not needed(source, data_dir):
        return
    if not yes:
        ask(name, source, folder)
    with progress_bar(f"{name} (MB)", quiet=quiet) as report:
        fetch(source, data_dir, in_megabytes(report))


def in_megabytes(report: Report) -> Report:
    """Progress counted in bytes, shown in megabytes."""
    return lambda done, total: report(done // MEGABYTE, total and total // MEGABYTE)


def ask(name: str, source: "Source", folder: Path) -> None:
    """Have the person agree to the download, or raise RunError."""
    size, about = known_size(source), sum(file.size or file.about for file in source.files)
    amount = megabytes(size) if size else f"about {megabytes(about)}" if about else "files of unknown size"
    say(f"{name}: {source.title}" + (f" ({source.note})" if source.note else ""))
    say(f"Download {amount} to {folder}? [y/N]")
    # Not typer.confirm, which puts a blank on stdout; at the end of input the answer is no.
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RunError(f"{name} was not downloaded", hint="agree, or add --yes")


def known_size(source: "Source") -> int | None:
    """Bytes to download; None if any file's size is not known."""
    sizes = [file.size for file in source.files]
    return None if None in sizes else source.size


def megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / MEGABYTE:.1f} MB"
