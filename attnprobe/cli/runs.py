"""Carry out runs: one after the other, side by side, as one ensemble, or one run shared by torchrun's processes."""

import dataclasses
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from attnprobe.cli.output import say
from attnprobe.cli.workers import Choices, train_in_parallel
from attnprobe.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from attnprobe.run import RunConfig
    from attnprobe.training.execute import Watch


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
    quiet: bool,
) -> list[dict[str, Any]]:
    """Run with progress on stderr; a first Ctrl-C stops between two steps and saves, then exits with 130."""
    from attnprobe.machine import choose_device, cores
    from attnprobe.training import distributed
    from attnprobe.training.allocator import keep_freed_memory
    from attnprobe.training.claim import check_claim, where_kept
    from attnprobe.training.loop import Interrupted
    from attnprobe.training.run_directory import RunDirectory

    keep_freed_memory()
    shared = distributed.started_by_torchrun()
    if distributed.rank() == 0:
        for config, folder in zip(configs, folders, strict=True):  # all of them, before anything is begun
            check_claim(RunDirectory(folder), config, resume=resume, overwrite=overwrite)
    if shared and len(configs) > 1:
        raise ConfigError("torchrun trains one run at a time", hint="leave out --seeds, or leave out torchrun")
    chosen = choose_device(distributed.local_device(device) if shared else device)
    watching = watches or [None] * len(configs)
    choices = Choices(data_dir=data_dir, resume=resume, overwrite=overwrite, quiet=quiet)
    with stop_on_signal(second_ends=not shared) as stop:  # torchrun passes on a signal that we have had already
        try:
            if shared:
                return train_shared(configs[0], folders[0], chosen, stop, choices, watching[0])
            if together and len(configs) > 1:
                return train_together(configs, folders, chosen, stop, choices, watching)
            workers = min(len(configs), cores())
            if chosen.type == "cpu" and workers > 1:
                say(f"{len(configs)} runs, {workers} at a time", quiet=quiet)
                return train_in_parallel(configs, folders, choices, watching, workers=workers, stop=stop)
            return [
                carry_out(config, folder, chosen, stop, choices, watch)
                for config, folder, watch in zip(configs, folders, watching, strict=True)
            ]
        except Interrupted:
            where = folders[0] if len(folders) == 1 else folders[0].parent
            helper = shared and distributed.rank() > 0
            say(f"interrupted; saved in {where}. Go on with the same command and --resume.", quiet=helper)
            for kept in filter(None, map(where_kept, folders)):
                say(f"{kept}.", quiet=helper)
            raise typer.Exit(130) from None


def carry_out(
    config: "RunConfig",
    folder: Path,
    device: "torch.device",
    stop: threading.Event,
    choices: Choices,
    watch: "Watch | None",
) -> dict[str, Any]:
    from attnprobe.cli.progress import TrainingProgress
    from attnprobe.training.execute import execute

    with TrainingProgress(quiet=choices.quiet) as monitor:
        return execute(
            config, folder, device=device, monitor=monitor, should_stop=stop.is_set, data_dir=choices.data_dir,
            watch=watch, resume=choices.resume, overwrite=choices.overwrite,
        )  # fmt: skip


def train_together(
    configs: "list[RunConfig]",
    folders: list[Path],
    device: "torch.device",
    stop: threading.Event,
    choices: Choices,
    watches: "Sequence[Watch | None]",
) -> list[dict[str, Any]]:
    """All runs as one ensemble; they go in step, so the first one's progress is everybody's."""
    from attnprobe.cli.progress import TrainingProgress
    from attnprobe.training.ensemble import check_alike, together
    from attnprobe.training.execute import Execution, updates
    from attnprobe.training.group_saves import GroupSaves
    from attnprobe.training.run_directory import RunDirectory

    check_alike(configs)
    say(f"{len(configs)} runs in step; the progress of the first one is shown", quiet=choices.quiet)
    datasets = {}
    with TrainingProgress(quiet=choices.quiet) as shown:
        executions = [
            Execution(
                config=config, directory=RunDirectory(folder), device=device, data_dir=choices.data_dir, watch=watch,
                monitor=shown if folder == folders[0] else TrainingProgress(quiet=True), should_stop=stop.is_set,
                datasets=datasets,
            )
            for config, folder, watch in zip(configs, folders, watches, strict=True)
        ]  # fmt: skip
        saves = GroupSaves(executions, resume=choices.resume)
        return together([updates(e, resume=choices.resume, overwrite=choices.overwrite) for e in executions], saves)


def train_shared(
    config: "RunConfig",
    folder: Path,
    device: "torch.device",
    stop: threading.Event,
    choices: Choices,
    watch: "Watch | None",
) -> list[dict[str, Any]]:
    """One run on all processes of torchrun; only the first one speaks, writes and returns a result."""
    from attnprobe.training import distributed

    with distributed.join(device) as rank, distributed.own_folder(rank, folder) as own:
        helper = rank > 0
        own_choices = dataclasses.replace(choices, quiet=choices.quiet or helper)
        result = carry_out(config, own, device, stop, own_choices, None if helper else watch)
    return [] if helper else [result]


@contextmanager
def stop_on_signal(*, second_ends: bool = True) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process as usual if ``second_ends``."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        if second_ends:
            for known, handler in earlier.items():
                signal.signal(known, handler)

    for number in earlier:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
