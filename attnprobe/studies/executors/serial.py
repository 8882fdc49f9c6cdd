"""One job after the other, in this process."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from attnprobe.config import require_positive
from attnprobe.launch.workers import outcome
from attnprobe.studies.executors.executor import Ended
from attnprobe.studies.job import Job
from attnprobe.training.loop import Interrupted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serial:
    """In this process."""

    jobs: int = 1  # more than one at a time there cannot be
    threads: int = 1  # of torch; the same number repeats the same bits, whoever carries a run out

    def __post_init__(self) -> None:
        require_positive(self, "threads")

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator["OneByOne"]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield OneByOne()
        finally:
            torch.set_num_threads(before)


class OneByOne:
    """Does a job when its end is waited for."""

    def __init__(self) -> None:
        self.submitted: Job | None = None
        self.stopped = False

    def has_room(self, job: Job) -> bool:
        return self.submitted is None

    def submit(self, job: Job) -> None:
        self.submitted = job

    def wait(self, seconds: float) -> Ended:
        job, self.submitted = self.submitted, None
        if job is None:
            return {}
        return {job.key: Interrupted() if self.stopped else outcome(job.work)}

    def stop(self) -> None:
        self.stopped = True
