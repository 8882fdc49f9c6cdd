"""Several runs side by side on the CPU: a process for each.

A process of its own for every run and not a pool: one that is killed must not take the others with it.
"""

import contextlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from attnprobe.errors import AttnprobeError, RunError
from attnprobe.machine import end_with_parent
from attnprobe.training.loop import Interrupted
from attnprobe.training.updates.allocator import keep_freed_memory

SECONDS_BETWEEN_LOOKS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Result = dict[str, Any]
Work = Callable[[Callable[[], bool]], Result]  # given a function that says whether to save and stop
Started = tuple[BaseProcess, Any]  # and the connection on which its result arrives
Running = dict[int, Started]


def in_processes(
    works: Sequence[Work], names: Sequence[str], *, workers: int, threads: int, stop: threading.Event
) -> list[Result]:
    """The results in order; at most ``workers`` at a time, each with so many ``threads``.

    works: can be pickled; names: what errors call them. When ``stop`` is set or one of them fails, the others are asked
    to save and to end, and then the error is raised: Interrupted, RunError for a process that was killed, or its own.
    """
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    waiting, running = list(range(len(works))), Running()
    try:
        while True:
            if errors or stop.is_set():
                waiting.clear()
                _ask_to_stop(running)
            while waiting and len(running) < workers:
                number = waiting.pop(0)
                running[number] = _start(works[number], threads)
            if not running:
                break
            for connection in wait([connection for _, connection in running.values()], SECONDS_BETWEEN_LOOKS):
                number = next(n for n, (_, own) in running.items() if own is connection)
                outcome = _outcome(*running.pop(number), names[number])
                if isinstance(outcome, Exception):
                    errors.append(outcome)
                else:
                    results[number] = outcome
    finally:
        _ask_to_stop(running)
        for process, _ in running.values():
            process.join()
    if errors or len(results) < len(works):
        raise next((error for error in errors if not isinstance(error, Interrupted)), Interrupted())
    return [results[number] for number in range(len(works))]


def _start(work: Work, threads: int) -> Started:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_carry_out, args=(work, threads, theirs))
    with _deaf_when_started():
        process.start()
    theirs.close()
    return process, ours


def _ask_to_stop(running: Running) -> None:
    for process, _ in running.values():
        process.terminate()  # a signal, not a lock that a killed process could hold for ever


def _outcome(process: BaseProcess, connection: Any, name: str) -> Result | Exception:
    try:
        found = connection.recv()
    except (EOFError, OSError, pickle.UnpicklingError):  # it ended without a word
        found = None
    process.join()
    if found is not None:
        return found
    code = process.exitcode or 0
    how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
    hint = "was there too little memory? The others have saved; go on with the same command and --resume"
    return RunError(f"the process of {name} {how}", hint=hint)


@contextlib.contextmanager
def _deaf_when_started() -> Iterator[None]:
    """Processes that start within hear no SIGINT and no SIGTERM until they can act on them (see ``_listen``)."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starts with the first process otherwise, and then lets these signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(work: Work, threads: int, connection: Any) -> None:
    """The whole life of a process."""
    end_with_parent()
    asked = _listen()
    keep_freed_memory()
    torch.set_num_threads(threads)
    try:
        if asked.is_set():  # not begun yet, nothing to save
            raise Interrupted
        outcome = work(asked.is_set)
    except (Interrupted, AttnprobeError) as error:
        outcome = error
    except MemoryError as error:
        outcome = RunError(f"not enough memory: {error}", hint="choose smaller sizes")
    connection.send(outcome)


def _listen() -> threading.Event:
    """An event that SIGTERM sets. A terminal's Ctrl-C reaches all processes, but only the first one decides."""
    asked = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return asked
