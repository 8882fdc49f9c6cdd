"""What every probe needs first: a model from a checkpoint and data of its task, or a foreign one and data given."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from attnprobe.capture.hugging_face.opening import Needs, Source
    from attnprobe.capture.subject import Capture, Subject
    from attnprobe.capture.watching.watched import Watched
    from attnprobe.models import Transformer
    from attnprobe.tasks import Data, Spec, Split, Task
    from attnprobe.training.saved.checkpoint import Checkpoint


FOREIGN = "hf:"  # before the folder or hub id of a model of Hugging Face, where the path of a checkpoint may stand


def is_foreign(path: Path) -> bool:
    return str(path).startswith(FOREIGN)


class SplitName(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedCheckpoint:
    path: Path
    label: str  # a short name, different for each checkpoint of one command
    checkpoint: "Checkpoint"
    model: "Transformer"
    split: "Split"

    def origin(self) -> dict[str, str | int]:
        """Where a tidy row comes from, beside the checkpoint's path."""
        return origin(self.checkpoint)

    @property
    def samples(self) -> int:
        return len(self.split)

    @property
    def capture(self) -> None:
        """Our own models need not be watched."""

    def own_loss(self, subject: "Subject") -> str:
        """That of what it is for."""
        return "label"

    @property
    def losses(self) -> dict[str, str]:
        """They need not be said: all of ours have them."""
        return {}

    def setting(self) -> str:
        """Equal for checkpoints that differ in nothing but the seed."""
        from attnprobe import run

        return f"{self.checkpoint.phase} of {run.fingerprint(dataclasses.replace(self.checkpoint.run, seed=0))}"

    def subject(self, *, seed: int = 0) -> "Subject":
        """What probes take; seed: of the masks."""
        from attnprobe.capture import ours

        return ours.of(self.model, self.split, trained=self.checkpoint.objectives(), seed=seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedForeign:
    """A model of Hugging Face with texts or images, where an ``OpenedCheckpoint`` may stand."""

    path: Path
    label: str
    source: "Source"
    device: str
    needs: "Needs"

    @functools.cached_property
    def _subjects(self) -> "dict[int, Watched]":
        return {}

    def subject(self, *, seed: int = 0) -> "Subject":
        """seed: of hidden tokens and fresh readouts."""
        if seed not in self._subjects:
            from attnprobe.capture.hugging_face.opening import open_source
            from attnprobe.machine import choose_device

            self._subjects[seed] = open_source(self.source, choose_device(self.device), needs=self.needs, seed=seed)
        return self._subjects[seed]

    @property
    def samples(self) -> int:
        return self.subject().samples

    @property
    def capture(self) -> "Capture | None":
        return next((subject.capture for subject in self._subjects.values()), None)

    def own_loss(self, subject: "Subject") -> str:
        """That of its own head."""
        return "reconstruction" if "reconstruction" in self.losses else "label"

    @property
    def losses(self) -> dict[str, str]:
        """Name -> what is told and by which head."""
        subject = next(iter(self._subjects.values()), None)
        return {} if subject is None else {name: loss.what for name, loss in subject.losses.items()}

    def origin(self) -> dict[str, str | int]:
        """It has no run of ours."""
        return {}


Opened = OpenedCheckpoint | OpenedForeign


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opener:
    """Opens the checkpoints of one command; data that several of them were trained on are loaded once."""

    split: SplitName = SplitName.test
    device: str = "auto"
    data_dir: Path | None = None
    datasets: "dict[Task, Data]" = dataclasses.field(default_factory=dict)
    foreign: dict[str, Any] = dataclasses.field(default_factory=dict)  # of ``Source``, for foreign models
    needs: "Needs" = "scores"  # what the probe asks of them

    def open_any(self, path: Path, label: str | None = None, *, task: "Task | None" = None) -> Opened:
        """A checkpoint as ``open`` does, or a model of Hugging Face."""
        if not is_foreign(path):
            return self.open(path, label, task=task)
        if task is not None:
            raise ConfigError(f"{path} takes no --task", hint="give it --text or --images")
        from attnprobe.capture.hugging_face.opening import Source

        model = str(path).removeprefix(FOREIGN)
        source = Source(model=model, **self.foreign)
        name = label or Path(model).name
        return OpenedForeign(path=path, label=name, source=source, device=self.device, needs=self.needs)

    def open(self, path: Path, label: str | None = None, *, task: "Task | None" = None) -> OpenedCheckpoint:
        """A checkpoint and data, of its own task by default, on the device; ArtifactError if they do not fit."""
        from attnprobe.machine import choose_device
        from attnprobe.training.saved.checkpoint import load_checkpoint

        device = choose_device(self.device)
        checkpoint = load_checkpoint(path)
        task = task or checkpoint.task
        if task not in self.datasets:
            outline = task.outline()
            if outline is not None:
                check_fit(path, checkpoint, outline.spec)  # before the data are made
            self.datasets[task] = task.load(self.data_dir)
        data = self.datasets[task]
        if task == checkpoint.task:
            check_unchanged(path, checkpoint, data)
        check_fit(path, checkpoint, data.spec)
        return OpenedCheckpoint(
            path=path,
            label=label or checkpoint.phase,
            checkpoint=checkpoint,
            model=checkpoint.make_model().to(device),
            split=data.splits()[self.split].to(device),
        )


def origin(checkpoint: "Checkpoint") -> dict[str, str | int]:
    """Where a tidy row comes from, beside the checkpoint's path."""
    return {"seed": checkpoint.run.seed, "phase": checkpoint.phase, "epoch": checkpoint.epoch}


def check_fit(path: Path, checkpoint: "Checkpoint", spec: "Spec") -> None:
    if spec != checkpoint.spec:
        reason = f"this data does not fit the model in {path}, which was trained on inputs of another kind"
        raise ArtifactError(reason, hint="measure on the task the model was trained on")


def check_unchanged(path: Path, checkpoint: "Checkpoint", data: "Data") -> None:
    """ArtifactError if a person's own files are not what they were; data that are drawn may round otherwise."""
    from attnprobe.tasks.own.source import OwnData

    task, kept = checkpoint.task, checkpoint.data_sha256
    if isinstance(task, OwnData) and kept is not None and kept != data.fingerprint():
        reason = f"the data in {task.path} have changed since the model in {path} was trained on them"
        raise ArtifactError(reason, hint="bring the earlier files back, or train again")


def labels(paths: Sequence[Path]) -> list[str]:
    """File stems of checkpoints of one run, else with the run's name before them, else whole paths.

    ConfigError if a checkpoint is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("the same checkpoint is given twice", hint="leave one of them out")

    def stem(path: Path) -> str:
        return Path(str(path).removeprefix(FOREIGN)).name if is_foreign(path) else path.stem

    foreign = any(is_foreign(path) for path in paths)
    for name in (stem, lambda p: f"{_run(p).name}/{stem(p)}", str):
        found = [name(path) for path in paths]
        together = foreign or name is not stem or len({path.resolve().parent for path in paths}) == 1
        if len(set(found)) == len(found) and together:
            break
    return found


def same_but_seed(opened: Sequence[Opened]) -> dict[str, list[OpenedCheckpoint]]:
    """Name -> checkpoints that differ in nothing but the seed, for every setting that several were opened of."""
    settings: dict[str, list[OpenedCheckpoint]] = {}
    for checkpoint in opened:
        if isinstance(checkpoint, OpenedCheckpoint):  # of others nobody knows which differ in nothing else
            settings.setdefault(checkpoint.setting(), []).append(checkpoint)
    found: dict[str, list[OpenedCheckpoint]] = {}
    for members in settings.values():
        if len(members) > 1:
            name = shared_name(members)
            name += f" ({1 + sum(other.startswith(name) for other in found)})" if name in found else ""
            found[name] = members
    return found


def shared_name(members: Sequence[OpenedCheckpoint]) -> str:
    """What runs that differ in nothing but the seed are called together: their folder without the seed, and phase."""
    names = list(dict.fromkeys(re.sub(r"[-_.]?s(eed)?[-_.]?\d+$", "", _run(m.path).name) for m in members))
    if names == [""]:  # folders called s0, s1, ... in one of their own
        names = list(dict.fromkeys(_run(m.path).parent.name for m in members))
    return f"{', '.join(filter(None, names))} {members[0].checkpoint.phase}, {len(members)} seeds"


def _run(path: Path) -> Path:
    """The folder of the run that wrote a checkpoint."""
    return path.resolve().parent.parent
