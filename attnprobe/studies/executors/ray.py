"""Jobs as tasks of a Ray cluster: one on this machine for as long as it takes, or one that runs already.

All machines of a cluster need attnprobe, and see the folders that jobs read and write under the same paths (NFS, a
volume): results land there, and nothing but "done" or an error comes back through Ray.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError, RunError, explain
from attnprobe.launch.signals import stop_on_signal
from attnprobe.launch.workers import LostError, outcome
from attnprobe.machine import cores
from attnprobe.studies.executors.executor import Ended
from attnprobe.studies.job import Job
from attnprobe.training.loop import Interrupted
from attnprobe.training.updates.allocator import keep_freed_memory

AHEAD = 200  # tasks handed to a cluster that may grow; it queues those it has no room for
LONGEST_FOLDER = 20  # characters; with what Ray appends, the path of a socket may have no more than 107
OBJECT_STORE = 100 * 2**20  # bytes; nothing of size passes through it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """As tasks of a Ray cluster."""

    address: str | None = None  # None: a cluster on this machine; auto: the one that RAY_ADDRESS or this machine knows
    jobs: int | None = None  # at most so many at a time; None: as many as there is room for
    threads: int = 1  # of torch, in each of them
    gpus_per_run: float = 0.0  # 0.25: four runs share a GPU; 0: they see none

    def __post_init__(self) -> None:
        require_positive(self, "jobs", "threads")
        whole = self.gpus_per_run <= 1 or self.gpus_per_run == int(self.gpus_per_run)
        possible = self.gpus_per_run >= 0 and whole
        require(possible, "gpus_per_run", f"must be a share of one GPU or a whole number, got {self.gpus_per_run}")

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator["Tasks"]:
        with tempfile.TemporaryDirectory(prefix="ray-", dir=_short_folder(), ignore_cleanup_errors=True) as temporary:
            ray = _imported()
            most = self.jobs or (AHEAD if self.address else max(1, cores() // self.threads))
            own = {"_temp_dir": temporary, "num_cpus": most * self.threads, "object_store_memory": OBJECT_STORE}
            common = {"log_to_driver": False, "logging_level": "error", "namespace": "attnprobe"}
            try:
                if self.address is None:
                    ray.init(address="local", include_dashboard=False, **own, **common)
                else:
                    ray.init(address=self.address, **common)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunError(f"no Ray cluster: {error}", hint="is the address right, and the cluster up?") from error
            try:
                yield Tasks(ray, self, most)
            finally:
                ray.shutdown()


class Tasks:
    def __init__(self, ray: Any, settings: Ray, most: int) -> None:
        self.ray, self.most = ray, most
        there = ray.cluster_resources().get("GPU", 0)
        if settings.address is None and there < settings.gpus_per_run:  # a cluster elsewhere may grow
            raise ConfigError(
                f"executor.gpus_per_run {settings.gpus_per_run:g} of {there:g} GPUs is more than there is",
                hint="choose a smaller share, or the --address of a cluster with GPUs",
            )
        # a task that was lost is the schedule's to try again, as with any executor
        self.task = ray.remote(num_cpus=settings.threads, num_gpus=settings.gpus_per_run, max_retries=0, max_calls=0)(
            _carry_out
        )
        self.threads = settings.threads
        self.memory = max(int(node["Resources"].get("memory", 0)) for node in ray.nodes())  # of the largest machine
        self.running: dict[Any, Job] = {}  # by the reference to its outcome
        self.asked: set[Any] = set()

    def has_room(self, job: Job) -> bool:
        return len(self.running) < self.most

    def submit(self, job: Job) -> None:
        memory = min(job.memory, self.memory) or None  # what no machine has would wait for ever
        reference = self.task.options(name=job.name, memory=memory).remote(job.work, os.getcwd(), self.threads)
        self.running[reference] = job

    def wait(self, seconds: float) -> Ended:
        running = list(self.running)
        if not self.ray.wait(running, num_returns=1, timeout=seconds)[0]:
            return {}
        ended, _ = self.ray.wait(running, num_returns=len(running), timeout=0)
        return {
            self.running[reference].key: self._outcome(reference, self.running.pop(reference)) for reference in ended
        }

    def stop(self) -> None:
        for reference in self.running.keys() - self.asked:  # a second time would end them before they have saved
            self.ray.cancel(reference)  # a KeyboardInterrupt there, which a run hears as SIGINT
            self.asked.add(reference)

    def _outcome(self, reference: Any, job: Job) -> Exception | None:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.TaskCancelledError:
            return Interrupted()
        except errors.RayTaskError as error:
            return explain(error)
        except errors.RayError as error:  # of the worker or of its machine
            return LostError(f"the Ray worker of {job.name} was lost ({type(error).__name__})")


def _carry_out(work: Callable[[], None], folder: str, threads: int) -> Exception | None:
    """folder: where the study was started, for paths that are relative."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    with stop_on_signal(), contextlib.chdir(folder):
        return outcome(work)


def _short_folder() -> str | None:
    """For temporary files; None: the usual one."""
    return "/tmp" if len(tempfile.gettempdir()) > LONGEST_FOLDER and Path("/tmp").is_dir() else None


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers of every use
    try:
        import ray
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("the executor ray needs Ray", hint="pip install 'attnprobe[grid]'") from error
    return ray
