"""What the schedule asks of whoever carries out jobs."""

from typing import Protocol

from attnprobe.studies.job import Job

# key of a job -> None: it is done; else why it failed, Interrupted, or LostError of one that may be tried again
Ended = dict[str, Exception | None]


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
