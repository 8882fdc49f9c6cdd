"""Carry out jobs that need each other: which may start, whom to try again, what a failed one makes impossible."""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from typing import Literal

from attnprobe.errors import RunError
from attnprobe.launch.workers import LostError
from attnprobe.studies.executors.executor import Ended, Executor
from attnprobe.studies.job import Job
from attnprobe.training.loop import Interrupted

SECONDS_BETWEEN_LOOKS = 0.2  # at most until a request to stop is passed on
RETRIES = 2
LOOKAHEAD = 100  # jobs that may overtake one that finds no room
State = Literal["started", "done", "failed", "lost", "not possible", "interrupted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What happened to a job, for whoever shows progress. After "lost" it starts again."""

    job: Job
    state: State
    reason: str = ""  # why it failed, was lost, or is not possible


class NotPossibleError(RunError):
    """A job that was not begun, for one that it needs has failed."""


def carry_out(
    jobs: Sequence[Job],
    executor: Executor,
    *,
    on_change: Callable[[Change], None] = lambda change: None,
    should_stop: Callable[[], bool] = lambda: False,
    retries: int = RETRIES,
) -> Ended:
    """Key of every job -> None if it is done, else why it is not; what fails does not stop the others.

    A job starts when all that it needs is done; NotPossibleError stands for those that need a failed one. When
    ``should_stop`` says so, or a job says that it was interrupted, what runs is asked to save and to end, and
    Interrupted stands for all that is not done. retries: how often a job is tried again whose worker was lost.
    ValueError if keys are not unique or not known, or if jobs need each other in a circle.
    """
    return _Schedule(jobs, executor, on_change, retries).carry_out(should_stop)


class _Schedule:
    def __init__(
        self, jobs: Sequence[Job], executor: Executor, on_change: Callable[[Change], None], retries: int
    ) -> None:
        self.jobs = {job.key: job for job in jobs}
        self.needed_by = defaultdict[str, list[str]](list)
        for job in jobs:
            for key in job.needs:
                self.needed_by[key].append(job.key)
        if len(self.jobs) < len(jobs) or not self.needed_by.keys() <= self.jobs.keys():
            raise ValueError("jobs need different keys, and may need only each other")
        self.executor, self.on_change, self.retries = executor, on_change, retries
        self.order = TopologicalSorter({job.key: job.needs for job in jobs})
        self.order.prepare()
        self.ready: dict[str, Job] = {}  # in order
        self.running: set[str] = set()
        self.losses = Counter[str]()
        self.ended: Ended = {}

    def carry_out(self, should_stop: Callable[[], bool]) -> Ended:
        stopping = False
        while True:
            stopping = stopping or should_stop()
            if stopping:
                self.executor.stop()
            else:
                self._start()
            if not self.running:
                break
            for key, error in self.executor.wait(SECONDS_BETWEEN_LOOKS).items():
                self.running.remove(key)
                stopping = stopping or isinstance(error, Interrupted)
                self._end(self.jobs[key], error, stopping=stopping)
        return {key: self.ended[key] if key in self.ended else Interrupted() for key in self.jobs}

    def _start(self) -> None:
        self.ready |= {key: self.jobs[key] for key in self.order.get_ready()}
        for job in list(itertools.islice(self.ready.values(), LOOKAHEAD)):
            if self.executor.has_room(job):
                del self.ready[job.key]
                self.running.add(job.key)
                self.executor.submit(job)
                self._tell(job, "started")

    def _end(self, job: Job, error: Exception | None, *, stopping: bool) -> None:
        if isinstance(error, LostError):
            self.losses[job.key] += 1
            if not stopping and self.losses[job.key] <= self.retries:
                self._tell(job, "lost", error)
                self.ready = {job.key: job, **self.ready}
                return
            error = Interrupted() if stopping else _given_up(error, self.losses[job.key])
        self.ended[job.key] = error
        if error is None:
            self.order.done(job.key)
            self._tell(job, "done")
        elif isinstance(error, Interrupted):
            self._tell(job, "interrupted")
        else:
            self._tell(job, "failed", error)
            self._give_up_what_needs(job)

    def _give_up_what_needs(self, failed: Job) -> None:
        reason = NotPossibleError(f"not possible: {failed.name} failed")
        waiting = list(self.needed_by[failed.key])
        while waiting:
            key = waiting.pop()
            if key not in self.ended:
                self.ended[key] = reason
                self._tell(self.jobs[key], "not possible", reason)
                waiting += self.needed_by[key]

    def _tell(self, job: Job, state: State, error: Exception | None = None) -> None:
        self.on_change(Change(job=job, state=state, reason="" if error is None else str(error)))


def _given_up(error: LostError, times: int) -> LostError:
    return error if times == 1 else LostError(f"{error}, {times} times", hint=error.hint)
