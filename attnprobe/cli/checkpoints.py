"""What every probe needs first: a model from a checkpoint, and data of the task it was trained on."""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from attnprobe.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from attnprobe.models import Transformer
    from attnprobe.tasks import Split, Task
    from attnprobe.training.checkpoint import Checkpoint


class SplitName(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    path: Path
    label: str  # a short name, different for each checkpoint of one command
    checkpoint: "Checkpoint"
    model: "Transformer"
    split: "Split"

    def origin(self) -> dict[str, str | int]:
        """Where a tidy row comes from, beside the checkpoint's path."""
        return {"seed": self.checkpoint.run.seed, "phase": self.checkpoint.phase, "epoch": self.checkpoint.epoch}

    def setting(self) -> str:
        """Equal for checkpoints that differ in nothing but the seed."""
        from attnprobe import run

        return f"{self.checkpoint.phase} of {run.fingerprint(dataclasses.replace(self.checkpoint.run, seed=0))}"


def open_checkpoint(
    path: Path,
    *,
    label: str | None = None,
    task: "Task | None" = None,
    split: SplitName = SplitName.test,
    device: str,
    data_dir: Path | None = None,
) -> Opened:
    """Load a checkpoint and data (of its own task by default) onto the device; ArtifactError if they do not fit."""
    from attnprobe.machine import choose_device
    from attnprobe.training.checkpoint import load_checkpoint

    chosen = choose_device(device)
    checkpoint = load_checkpoint(path)
    data = (task or checkpoint.task).load(data_dir)
    if data.spec != checkpoint.spec:
        raise ArtifactError(f"this data does not fit the model in {path}, which was trained on inputs of another kind")
    return Opened(
        path=path,
        label=label or checkpoint.phase,
        checkpoint=checkpoint,
        model=checkpoint.make_model().to(chosen),
        split=data.splits()[split].to(chosen),
    )


def labels(paths: Sequence[Path]) -> list[str]:
    """File stems where they tell the checkpoints apart, else with the run's name before them, else whole paths.

    ConfigError if a checkpoint is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("the same checkpoint is given twice")
    for name in (lambda p: p.stem, lambda p: f"{p.resolve().parent.parent.name}/{p.stem}", str):
        found = [name(path) for path in paths]
        if len(set(found)) == len(found):
            break
    return found
