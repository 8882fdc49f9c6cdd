"""What can be found out before a probe's long work starts: are its outputs writable, is there enough data?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnprobe.cli.probe.options import FOREIGN_OPTIONS
from attnprobe.cli.screen.output import say
from attnprobe.errors import ConfigError
from attnprobe.files import outputs
from attnprobe.opening import FOREIGN, Opened, OpenedCheckpoint, is_foreign


def check_outputs(
    inputs: Sequence[Path],
    *,
    csv: Path | None = None,
    npz: Path | None = None,
    figure: Path | None = None,
    further: Sequence[str] = (),
) -> None:
    """``outputs.check_outputs`` for the options of a probe; further: what other figures than the first it draws."""
    figures = [] if figure is None else [figure, *(outputs.further_figure(figure, what) for what in further)]
    files = [file for name in figures for file in outputs.figure_files(name)]
    rows, arrays = ([] if path is None else [path] for path in (csv, npz))
    outputs.check_outputs([("--csv", "rows", rows), ("--npz", "arrays", arrays), ("--figure", "figure", files)], inputs)


def check_foreign(paths: Sequence[Path], given: Mapping[str, Any]) -> None:
    """ConfigError if there is something to run foreign models on, and none of them."""
    if any(is_foreign(path) for path in paths):
        return
    for name, value in given.items():
        if value != FOREIGN_OPTIONS[name][1]:
            option = "--allow-download" if name == "download" else f"--{name.replace('_', '-')}"
            message = f"{option} is for models of Hugging Face, and {paths[0]} is none"
            raise ConfigError(message, hint=f"leave it out, or write {FOREIGN}FOLDER")


def note_sequences(opened: Opened, asked: int, *, quiet: bool) -> None:
    """Say on stderr if there are fewer sequences than were asked for; ``n`` of the rows is what was measured."""
    there = opened.samples
    if there < asked:
        where = "in this split" if isinstance(opened, OpenedCheckpoint) else "in these data"
        say(f"{opened.label}: only {there} sequences {where}, not {asked}; all are measured", quiet=quiet)
