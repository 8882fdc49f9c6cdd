"""What can be found out before a probe's long work starts: are its outputs writable, is there enough data?"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from attnprobe.cli.checkpoints import Opened
from attnprobe.cli.output import say
from attnprobe.errors import ConfigError


def check_outputs(
    inputs: Sequence[Path], *, csv: Path | None = None, npz: Path | None = None, figure: Path | None = None
) -> None:
    """Make the folders of the outputs and try to write there.

    Raises ConfigError if an output cannot be written, is a folder, is an input, or is named twice.
    """
    given = {"--csv": csv, "--npz": npz, "--figure": figure}
    taken: dict[Path, str] = {path.resolve(): "an input" for path in inputs}
    for option, path in given.items():
        if path is None:
            continue
        files = [path] if option != "--figure" else [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
        for file in files:
            if file.is_dir():
                raise ConfigError(f"{option} {file} is a folder", hint="give the path of a file in it")
            if file.resolve() in taken:
                raise ConfigError(f"{option} {file} is also {taken[file.resolve()]}", hint="give it a path of its own")
            taken[file.resolve()] = f"the file of {option}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            reason = f"{option} {path} cannot be written: {error.strerror or error}"
            raise ConfigError(reason, hint="choose a folder that can be written") from error


def note_sequences(opened: Opened, asked: int, *, quiet: bool) -> None:
    """Say on stderr if there are fewer sequences than were asked for; ``n`` of the rows is what was measured."""
    there = len(opened.split)
    if there < asked:
        say(f"{opened.label}: only {there} sequences in this split, not {asked}; all are measured", quiet=quiet)
