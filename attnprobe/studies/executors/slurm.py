"""Jobs in the queue of a SLURM cluster, as job arrays of submitit.

The machines need attnprobe in the same environment, and see the folders that jobs read and write under the same paths.
A job that runs out of its time, or must make room for another, goes back into the queue and goes on from its last save.

The tests carry jobs out with ``cluster = "local"``, submitit's stand-in without a queue. What only SLURM itself can
show is not tested: that it accepts partition, account and the like, that it requeues, what its states are, and that its
scancel leaves a run the time to save (the cluster's KillWait, usually 30 seconds).
"""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError, RunError
from attnprobe.launch.signals import stop_on_signal
from attnprobe.launch.workers import LostError, outcome
from attnprobe.machine import cores
from attnprobe.studies.executors.executor import Ended
from attnprobe.studies.executors.processes import WORKER_MEMORY
from attnprobe.studies.job import Job

MOST_QUEUED = 1000  # what clusters usually allow an array, or a user
SECONDS_BETWEEN_LOOKS = {
    "slurm": 5.0,
    "local": 0.2,
}  # at files on a shared disk; submitit asks the queue itself less often
MOST_TIMEOUTS = 100  # how often a job goes back into the queue


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """In the queue of a SLURM cluster."""

    cluster: Literal["slurm", "local"] = "slurm"  # local: processes on this machine, to try it out
    jobs: int | None = None  # at most so many in the queue at a time; None: 1000
    threads: int = 1  # of torch, and cores of each job
    time: int = 240  # minutes after which a job goes back into the queue
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0  # of each job
    memory_gb: float | None = None  # of each job; None: as estimated

    def __post_init__(self) -> None:
        require_positive(self, "jobs", "threads", "time", "memory_gb")
        require(self.gpus >= 0, "gpus", f"must not be negative, got {self.gpus}")

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator["Queue"]:
        submitit = _imported()
        folder.mkdir(parents=True, exist_ok=True)
        logs = Path(tempfile.mkdtemp(prefix="slurm-", dir=folder))
        try:
            often = {f"{self.cluster}_max_num_timeout": MOST_TIMEOUTS}
            queue = Queue(submitit.AutoExecutor(logs, cluster=self.cluster, **often), self)
        except RuntimeError as error:
            logs.rmdir()
            raise RunError(
                f"no SLURM: {error}", hint="start this where sbatch is, or choose --executor processes"
            ) from error
        try:
            yield queue
        finally:
            for job, _ in queue.running.values():
                job.cancel(check=False)
            if not queue.failed:
                shutil.rmtree(logs)


class Queue:
    def __init__(self, executor: Any, settings: Slurm) -> None:
        self.executor, self.settings = executor, settings
        self.local = settings.cluster == "local"
        self.most = settings.jobs or (max(1, cores() // settings.threads) if self.local else MOST_QUEUED)
        self.submitted: list[Job] = []
        self.running: dict[str, tuple[Any, Job]] = {}
        self.asked: set[str] = set()
        self.failed = False  # then the logs stay
        self.next_look = 0.0

    def has_room(self, job: Job) -> bool:
        return len(self.running) + len(self.submitted) < self.most

    def submit(self, job: Job) -> None:
        self.submitted.append(job)

    def wait(self, seconds: float) -> Ended:
        if self.submitted:
            self._submit_array()
        now = time.monotonic()
        if now < self.next_look:
            time.sleep(min(seconds, self.next_look - now))
        if time.monotonic() < self.next_look:
            return {}
        self.next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS[self.settings.cluster]
        ended = [key for key, (job, _) in self.running.items() if job.done()]
        return {key: self._outcome(*self.running.pop(key)) for key in ended}

    def stop(self) -> None:
        for key in self.running.keys() - self.asked:  # a second signal would end them before they have saved
            job, _ = self.running[key]
            self.asked.add(key)
            if self.local:  # whose cancel() kills after a second, with no regard to what is being saved
                os.kill(int(job.job_id), signal.SIGTERM)
            else:
                job.cancel(check=False)

    def _submit_array(self) -> None:
        self.executor.update_parameters(**_parameters(self.settings, max(job.memory for job in self.submitted)))
        with self.executor.batch():
            queued = [self.executor.submit(_CarryOut(job.work, self.settings.threads)) for job in self.submitted]
        self.running |= {job.key: (place, job) for place, job in zip(queued, self.submitted, strict=True)}
        self.submitted = []

    def _outcome(self, place: Any, job: Job) -> Exception | None:
        try:
            found = place.result()
        except Exception as error:  # submitit raises what it likes for a job without a result
            why = f"{place.state}, {type(error).__name__}"
            message = f"SLURM job {place.job_id} of {job.name} ended without a result ({why})"
            found = LostError(message, hint=f"its log is {place.paths.stderr}")
        self.failed = self.failed or isinstance(found, RunError)
        return found


class _CarryOut:
    """What a job of the queue does; submitit sends it back there by ``checkpoint``."""

    def __init__(self, work: Callable[[], None], threads: int) -> None:
        self.work, self.threads = work, threads

    def __call__(self) -> Exception | None:
        torch.set_num_threads(self.threads)
        with stop_on_signal():
            return outcome(self.work)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]

        return DelayedSubmission(self)


def _parameters(settings: Slurm, memory: int) -> dict[str, Any]:
    """As submitit calls them. memory: bytes that a job takes at most, 0 if that is not known."""
    named = {name: getattr(settings, name) for name in ("partition", "account", "qos", "constraint")}
    estimated = math.ceil((memory + WORKER_MEMORY) / 10**9) if memory else None
    asked = {
        "timeout_min": settings.time, "cpus_per_task": settings.threads, "gpus_per_node": settings.gpus,
        "mem_gb": settings.memory_gb or estimated, **{f"slurm_{name}": value for name, value in named.items()},
    }  # fmt: skip
    return {name: value for name, value in asked.items() if value is not None}


def _imported() -> Any:
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("the executor slurm needs submitit", hint="pip install 'attnprobe[grid]'") from error
    return submitit
