"""Processes on this machine that carry out one work after the other, each with its own number of threads.

A pool of our own, for those of the libraries give all their work up when one process is killed.
"""

import contextlib
import functools
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import torch

from attnprobe.errors import RunError, explain
from attnprobe.launch import signals
from attnprobe.machine import end_with_parent
from attnprobe.training.loop import Interrupted
from attnprobe.training.updates.allocator import keep_freed_memory

Work = Callable[[], Any]  # hears of requests to stop by ``signals.stop_on_signal``
Worker = tuple[BaseProcess, Any]  # and the connection to it


class LostError(RunError):
    """Who carried work out ended without a word; to try again may help."""

    usual_hint = "was there too little memory?"


def outcome(work: Work) -> Any:
    """What the work returns, or in place of an exception Interrupted or what a user is told of it."""
    try:
        return work()
    except Interrupted as interrupted:
        return interrupted
    except Exception as error:
        if os.environ.get("ATTNPROBE_DEBUG"):
            traceback.print_exc()
        return explain(error)


class Workers:
    """At most so many processes, started when they are needed. One that is killed costs only the work it was at."""

    def __init__(self, most: int, *, threads: int) -> None:
        self.most, self.threads = most, threads
        self.idle: list[Worker] = []
        self.busy: dict[Hashable, tuple[Worker, str]] = {}  # key -> who is at it, and what errors call it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """What still works is killed."""
        working = [worker for worker, _ in self.busy.values()]
        for process, _ in working:
            process.kill()
        for process, connection in [*self.idle, *working]:
            connection.close()  # an idle one ends
            process.join()

    def start(self, key: Hashable, work: Work, name: str) -> None:
        """Let a worker do it, which there must be (see ``most``). work: can be pickled; name: what errors call it."""
        message = pickle.dumps(work)
        while self.idle:
            worker = self.idle.pop()
            with contextlib.suppress(OSError):  # killed while it had nothing to do
                worker[1].send_bytes(message)
                break
            worker[0].join()
        else:
            worker = _started(self.threads)
            with contextlib.suppress(OSError):  # already killed, as ``wait`` will find
                worker[1].send_bytes(message)
        self.busy[key] = worker, name

    def wait(self, seconds: float) -> dict[Any, Any]:
        """Key -> ``outcome`` of what ended since, or LostError; waits at most so long."""
        speaking = wait([connection for (_, connection), _ in self.busy.values()], seconds)
        ended = [key for key, ((_, connection), _) in self.busy.items() if connection in speaking]
        return {key: self._outcome(*self.busy.pop(key)) for key in ended}

    def ask_to_stop(self) -> None:
        for (process, _), _ in self.busy.values():
            process.terminate()  # a signal, not a lock that a killed process could hold for ever

    def _outcome(self, worker: Worker, name: str) -> Any:
        process, connection = worker
        try:
            found = connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # it ended without a word
            connection.close()
            process.join()
            code = process.exitcode or 0
            how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
            return LostError(f"the process of {name} {how}")
        self.idle.append(worker)
        return found


def _started(threads: int) -> Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(threads, theirs))
    with _deaf_when_started():
        process.start()
    theirs.close()
    return process, ours


@contextlib.contextmanager
def _deaf_when_started() -> Iterator[None]:
    """Processes that start within hear no SIGINT and no SIGTERM until they can act on them (see ``_live``)."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starts with the first process otherwise, and then lets these signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(threads: int, connection: Any) -> None:
    """The whole life of a worker."""
    end_with_parent()
    asked = signals.listen_as_worker()
    keep_freed_memory()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # nothing more to do
        while True:
            message = connection.recv_bytes()
            connection.send(outcome(functools.partial(_work, message, asked)))


def _work(message: bytes, asked: threading.Event) -> Any:
    if asked.is_set():  # not begun yet, nothing to save
        raise Interrupted
    return pickle.loads(message)()
