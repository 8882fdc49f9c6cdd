"""Carrying out runs from the command line: progress on stderr, and what to do after an interruption."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attnprobe.cli.screen.output import say

if TYPE_CHECKING:
    from attnprobe.run import RunConfig
    from attnprobe.training.execution import Watch


def train_all(
    configs: "list[RunConfig]",
    folders: list[Path],
    device: str,
    data_dir: Path | None,
    resume: bool,
    overwrite: bool,
    *,
    watches: "Sequence[Watch] | None" = None,
    together: bool = False,
    log: Sequence[str] = (),
    names: Sequence[str] | None = None,
    quiet: bool,
    again: str = "",
) -> list[dict[str, Any]]:
    """Run with progress on stderr; a first Ctrl-C stops between two steps and saves, then exits with 130.

    again: what goes on where it stopped, if that is not --resume.
    """
    from attnprobe.cli.screen.progress import TrainingProgress
    from attnprobe.launch.runs import launch
    from attnprobe.training import distributed
    from attnprobe.training.loop import Interrupted
    from attnprobe.training.saved.replacing import where_kept

    try:
        return launch(
            list(zip(configs, folders, watches or [None] * len(configs), strict=True)),
            device=device,
            make_monitor=TrainingProgress,
            say=lambda text: say(text, quiet=quiet),
            quiet=quiet,
            names=names,
            as_ensemble=together,
            data_dir=data_dir,
            resume=resume,
            overwrite=overwrite,
            log=log,
        )
    except Interrupted:
        where = folders[0] if len(folders) == 1 else folders[0].parent
        helper = distributed.rank() > 0
        again = again or f"the same command and --resume{' instead of --overwrite' if overwrite else ''}"
        say(f"interrupted; saved in {where}. Go on with {again}.", quiet=helper)
        for kept in filter(None, map(where_kept, folders)):
            say(f"{kept}.", quiet=helper)
        raise typer.Exit(130) from None
