"""Carrying out what is missing of a study: passes over its jobs, until nothing is left that another process has."""

import time
from collections.abc import Callable, Sequence

from attnprobe.files.ownership import BusyError, has_writer
from attnprobe.studies.executors.executor import Ended, Executor
from attnprobe.studies.job import Job
from attnprobe.studies.schedule import Change, NotPossibleError, carry_out
from attnprobe.studies.work.jobs import Asked, missing

SECONDS_BETWEEN_LOOKS = 0.5


def complete(
    asked: Asked,
    executor: Executor,
    *,
    on_start: Callable[[Sequence[Job]], None] = lambda jobs: None,
    on_change: Callable[[Change], None] = lambda change: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Ended:
    """Do everything that is missing; how each job ended. What fails is not tried again before the next call.

    Runs that another process carries out are left to it, and looked at again when all others are done: then they are
    finished, or are taken up. on_start: hears of the jobs of every pass.
    """
    ended: Ended = {}
    while not should_stop():
        failed = {key for key, error in ended.items() if error is not None}
        jobs = _without(missing(asked), failed)
        if not jobs:
            break
        on_start(jobs)
        found = carry_out(jobs, executor, on_change=on_change, should_stop=should_stop)
        busy = {key for key, error in found.items() if isinstance(error, BusyError)}
        waiting = busy | {key for key, error in found.items() if busy and isinstance(error, NotPossibleError)}
        ended |= {key: error for key, error in found.items() if key not in waiting}
        if not busy:
            break
        while not should_stop() and all(has_writer(asked.store.run(key)) for key in busy):
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return ended


def _without(jobs: Sequence[Job], failed: set[str]) -> list[Job]:
    """The jobs that have not failed, and need none that has."""
    gone, kept = set(failed), list[Job]()
    for job in jobs:  # what is needed stands before what needs it
        if job.key in gone or gone & set(job.needs):
            gone.add(job.key)
        else:
            kept.append(job)
    return kept
