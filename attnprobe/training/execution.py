"""A run on its way: what is fixed, what has been reached so far, and what may look on."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnprobe.machine import now
from attnprobe.models import Transformer
from attnprobe.objectives import Objective
from attnprobe.run import Engine, Phase, RunConfig
from attnprobe.tasks import Data, Task
from attnprobe.training.distributed import World
from attnprobe.training.logs import Log, LogName, update
from attnprobe.training.monitor import Monitor
from attnprobe.training.saved.run_directory import RunDirectory
from attnprobe.training.updates.attention_kernels import KernelName
from attnprobe.training.updates.steppers import ModeChoice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """A run between two updates."""

    phase: str
    step: int  # updates made so far in the phase
    model: Transformer
    data: Data
    objectives: Sequence[Objective]  # those of the whole run, and of the self-pretraining it starts from


Watch = Callable[[Moment], None]


@dataclasses.dataclass(kw_only=True)
class Execution:
    """One run on its way: what is fixed, and what has been reached so far."""

    config: RunConfig
    directory: RunDirectory
    device: torch.device
    monitor: Monitor
    should_stop: Callable[[], bool] = lambda: False
    data_dir: Path | None = None
    resume: bool = False  # continue an interrupted run exactly
    log: Sequence[LogName] = ()  # copies of metrics.jsonl for other programs
    overwrite: bool = False  # replace an earlier run when this one is finished
    watch: Watch | None = None  # called before the first and after every update; must leave the model as it is
    attention: Mapping[str, KernelName] = dataclasses.field(default_factory=dict)  # phase -> kernel, as in the manifest
    modes: dict[str, ModeChoice] = dataclasses.field(default_factory=dict)  # phase -> how updates are carried out
    world: World = dataclasses.field(default_factory=World)
    in_group: bool = False  # a member of an ensemble, whose driver says when it is time to save (see ``group_saves``)
    resume_from: Path | None = None  # None: what the run directory has
    resumed: dict[str, Any] | None = None  # the content of resume.pt, if an interrupted run is continued
    saved: str = ""  # what resume.pt holds, in words; nothing as long as there is none
    pretrain: Phase | None = None  # the self-pretraining behind the models: of this run, or of its --pretrained
    profile: Tensor | None = None  # that of model.score_profile, once the run has begun
    logs: Sequence[Log] = ()  # those that are open
    seconds_before: float = 0.0
    started: float = dataclasses.field(default_factory=time.perf_counter)
    datasets: dict[Task, Data] = dataclasses.field(default_factory=dict)  # several runs may share one
    last_save: float = dataclasses.field(default_factory=time.perf_counter)

    def data(self, task: Task) -> Data:
        if task not in self.datasets:
            self.datasets[task] = task.load(self.data_dir).to(self.device)
        return self.datasets[task]

    def engine(self, phase: str) -> Engine:
        """The engine of the settings with the attention kernel that was chosen for this phase."""
        return dataclasses.replace(self.config.engine, attention=self.attention[phase])

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started


class Recorder:
    """Passes progress on to the run's monitor, and writes each finished epoch into metrics.jsonl."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        monitor = execution.monitor
        self.message = monitor.message

    def phase_started(self, name: str, phase: Phase, samples: int, done: int) -> None:
        self.done = done
        self.execution.monitor.phase_started(name, phase, samples, done)

    def stepped(self, samples: int) -> None:
        self.done += samples
        self.step = self.done // samples
        self.execution.monitor.stepped(samples)

    def epoch_finished(self, name: str, epoch: int, numbers: dict[str, float]) -> None:
        record = {
            "phase": name,
            "epoch": epoch + 1,
            "step": self.step,
            **numbers,
            "seconds": round(self.execution.seconds(), 3),
        }
        directory = self.execution.directory
        directory.append(directory.metrics, [record | {"time": now()}])
        update(self.execution.logs, directory)
        self.execution.monitor.epoch_finished(name, epoch, numbers)
