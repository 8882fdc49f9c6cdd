"""Jobs side by side in processes of this machine, as many as its cores and its memory allow."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from attnprobe.config import require_positive
from attnprobe.launch.workers import Workers
from attnprobe.machine import cores, free_memory, memory
from attnprobe.studies.executors.executor import Ended
from attnprobe.studies.job import Job

WORKER_MEMORY = 200 * 2**20  # bytes that Python and torch take beside what a job is estimated at (measured: 164 MiB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """In processes of this machine, which are used again."""

    jobs: int | None = None  # at most so many at a time; None: as many as there are cores for their threads
    threads: int = 1  # of torch, in each of them
    memory_gb: float | None = None  # what all of them may take together; None: what is free when they start

    def __post_init__(self) -> None:
        require_positive(self, "jobs", "threads", "memory_gb")

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator["SideBySide"]:
        most = self.jobs or max(1, cores() // self.threads)
        free = free_memory(torch.device("cpu"))
        total = memory() if free is None else min(free, memory())
        allowed = total if self.memory_gb is None else int(self.memory_gb * 10**9)
        with Workers(most, threads=self.threads) as workers:
            yield SideBySide(workers, allowed - most * WORKER_MEMORY)


class SideBySide:
    def __init__(self, workers: Workers, memory: int) -> None:
        """memory: bytes that the jobs may take together; one runs even if it is estimated at more."""
        self.workers, self.memory = workers, memory
        self.running: dict[str, Job] = {}

    def has_room(self, job: Job) -> bool:
        taken = sum(other.memory for other in self.running.values())
        return not self.running or (len(self.running) < self.workers.most and taken + job.memory <= self.memory)

    def submit(self, job: Job) -> None:
        self.workers.start(job.key, job.work, job.name)
        self.running[job.key] = job

    def wait(self, seconds: float) -> Ended:
        ended = self.workers.wait(seconds)
        for key in ended:
            del self.running[key]
        return ended

    def stop(self) -> None:
        self.workers.ask_to_stop()
