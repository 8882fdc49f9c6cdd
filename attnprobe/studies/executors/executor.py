"""What the schedule asks of whoever carries out jobs."""

import os
import traceback
from collections.abc import Callable
from typing import Protocol

from attnprobe.errors import RunError, explain
from attnprobe.studies.job import Job
from attnprobe.training.loop import Interrupted

Ended = dict[str, Exception | None]  # key of a job -> why it failed, Interrupted, or None: it is done


class LostError(RunError):
    """Who carried a job out ended without a word; to try again may help."""


class Executor(Protocol):
    """Submit, then wait for what has ended, as with ``concurrent.futures``; but a lost worker costs only its own job.

    Nothing is called from two threads. On leaving its context everything that still runs is ended at once.
    """

    def has_room(self, job: Job) -> bool:
        """Whether the job could start now."""
        ...

    def submit(self, job: Job) -> None: ...

    def wait(self, seconds: float) -> Ended:
        """Those that ended since the last call, after at most so many seconds (serial: one job)."""
        ...

    def stop(self) -> None:
        """Ask what runs to save and to end; called again and again until all have."""
        ...


def outcome(work: Callable[[], None]) -> Exception | None:
    """Do the work here: None, Interrupted, or what a user is told of the error."""
    try:
        work()
    except Interrupted as interrupted:
        return interrupted
    except Exception as error:
        if os.environ.get("ATTNPROBE_DEBUG"):
            traceback.print_exc()
        return explain(error)
    return None
