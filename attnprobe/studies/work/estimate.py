"""What a study would take, before anything starts: a few steps are timed for every shape of run, not for every run."""

import dataclasses
from collections import defaultdict
from typing import Any

from attnprobe import run
from attnprobe.errors import AttnprobeError
from attnprobe.launch.plan import looking
from attnprobe.machine import choose_device
from attnprobe.run import Optimizer, Phase, RunConfig
from attnprobe.studies.work.jobs import Asked, trainings
from attnprobe.studies.work.training import Training
from attnprobe.training.estimate import count_memory, measure_duration
from attnprobe.training.walk import sizes_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What the time of an epoch depends on."""

    config: RunConfig
    phase: Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training data and one over the validation data."""

    steps: int
    seconds: float | None  # None: it could not be timed, ``note`` says why
    memory: int
    note: str = ""


def estimate(asked: Asked) -> dict[str, Any]:
    """As ``attnprobe study run --dry-run --json`` has it. Nothing is written; data are loaded only to count them."""
    device, epoch_of = choose_device(asked.device), _Epochs(asked)
    known = trainings(asked)
    arms: dict[str, dict[str, Any]] = defaultdict(lambda: {"trainings": 0, "done": 0, "steps": 0, "seconds": 0.0})
    notes, most = dict[str, None](), 0
    for training in known.values():
        name = "pretraining" if training.config.finetune is None else "finetuning"
        row = arms[name]
        row["trainings"] += 1
        row["done"] += (done := asked.store.state(training.key)[0] == "done")
        for phase in training.config.phases().values():
            epoch = epoch_of(training, phase)
            most = max(most, epoch.memory)
            notes |= {epoch.note: None} if epoch.note else {}
            if not done:
                row["steps"] += epoch.steps * phase.epochs
                row["seconds"] = _sum(row["seconds"], None if epoch.seconds is None else epoch.seconds * phase.epochs)
    seconds = [row["seconds"] for row in arms.values()]
    return {
        "runs": len(asked.runs),
        "trainings": len(known),
        "done": sum(row["done"] for row in arms.values()),
        "parts": dict(arms),
        "steps": sum(row["steps"] for row in arms.values()),
        "seconds": None if None in seconds else sum(seconds),  # one after the other, of what is not done
        "memory": most,
        "device": str(device),
        "notes": list(notes),
    }


def _sum(one: float | None, other: float | None) -> float | None:
    """None if one of them is not known."""
    return None if one is None or other is None else one + other


class _Epochs:
    """Asked for the epochs of many runs, measures those of every shape once."""

    def __init__(self, asked: Asked) -> None:
        self.device, self.look = choose_device(asked.device), looking(asked.data_dir)
        self.known: dict[Shape, Epoch] = {}

    def __call__(self, training: Training, phase: Phase) -> Epoch:
        pretrain = training.config.pretrain if training.source is None else training.source.config.pretrain
        shape = _shape(training.config, phase, pretrain)
        if shape not in self.known:
            self.known[shape] = self._measured(shape)
        return self.known[shape]

    def _measured(self, shape: Shape) -> Epoch:
        config, phase = shape.config, shape.phase
        try:
            data = self.look(config.task)
            target = run.reconstruction_target(config, data.spec, config.pretrain)
            memory = count_memory(config, phase, data, target)
            duration = measure_duration(config, phase, data, target, memory, self.device)
        except AttnprobeError as error:
            return Epoch(steps=0, seconds=None, memory=0, note=f"{error} ({error.hint})")
        samples = sizes_of(data)["train"]
        steps = samples // min(phase.batch_size, samples)
        return Epoch(steps=steps, seconds=duration.seconds, memory=memory.total, note=duration.note)


def _shape(config: RunConfig, phase: Phase, pretrain: Phase | None) -> Shape:
    """Without seed, rates, and whatever else costs no time."""
    plain = {"epochs": 1, "optimizer": Optimizer(), "task": None, "transfer": "all", "patience": None}
    short = dataclasses.replace(phase, **plain)
    before = None if pretrain is None else dataclasses.replace(pretrain, **plain)
    model = dataclasses.replace(config.model, score_profile=None, score_profile_dose=1.0, score_profile_shuffle=None)
    shape = dataclasses.replace(
        config, task=config.task_of(phase), model=model, pretrain=before, finetune=short, pretrained=None, seed=0
    )
    return Shape(config=shape, phase=short)
