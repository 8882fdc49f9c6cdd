"""Several runs side by side on the CPU: one process each, the cores divided among them."""

import dataclasses
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnprobe.run import RunConfig
    from attnprobe.training.execute import Watch

SECONDS_BETWEEN_LOOKS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What the command line says about carrying out runs, the same for all of them."""

    data_dir: Path | None
    resume: bool
    overwrite: bool
    quiet: bool


def train_in_parallel(
    configs: "Sequence[RunConfig]",
    folders: Sequence[Path],
    choices: Choices,
    watches: "Sequence[Watch | None]",
    *,
    workers: int,
    stop: Any,
) -> list[dict[str, Any]]:
    """The results in order; Interrupted once all have saved if ``stop`` (a threading.Event) was set meanwhile.

    A run that fails ends the others as an interruption does; its error is raised when they have saved.
    """
    from attnprobe.machine import cores
    from attnprobe.training.loop import Interrupted

    context = get_context("spawn")
    asked = context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(max(1, cores() // workers), asked)
    )
    with pool:
        with _unheard_by_children():
            futures = [
                pool.submit(_train, config, folder, choices, watch)
                for config, folder, watch in zip(configs, folders, watches, strict=True)
            ]
        running: set[Future[dict[str, Any]]] = set(futures)
        while running:
            done, running = wait_for(running, timeout=SECONDS_BETWEEN_LOOKS)
            if not asked.is_set() and (stop.is_set() or any(f.exception() for f in done if not f.cancelled())):
                asked.set()
    errors = [error for f in futures if (error := f.exception()) is not None]
    failures = [error for error in errors if not isinstance(error, Interrupted)]
    if errors:
        raise (failures or errors)[0]
    return [f.result() for f in futures]


_asked: Event  # set in every worker by ``_start``


def _start(threads: int, asked: Event) -> None:
    global _asked
    import torch

    from attnprobe.training.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _asked = asked


@contextmanager
def _unheard_by_children() -> Iterator[None]:
    """A terminal's Ctrl-C reaches all processes, but the first one decides. Those that start within inherit a mask
    that holds signals off even while they import; this process is told of them afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train(
    config: "RunConfig",
    folder: Path,
    choices: Choices,
    watch: "Watch | None",
) -> dict[str, Any]:
    import torch

    from attnprobe.cli.progress import TrainingProgress
    from attnprobe.training.execute import execute
    from attnprobe.training.loop import Interrupted

    if _asked.is_set():  # not begun yet, nothing to save
        raise Interrupted
    with TrainingProgress(quiet=choices.quiet, live=False, prefix=f"seed {config.seed} ") as monitor:
        return execute(
            config, folder, device=torch.device("cpu"), monitor=monitor, should_stop=_asked.is_set,
            data_dir=choices.data_dir, watch=watch, resume=choices.resume, overwrite=choices.overwrite,
        )  # fmt: skip
