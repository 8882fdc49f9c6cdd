"""What tasks that read a person's own files share: where these are, how they are divided, what is said of them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.machine import free_memory, memory
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.own.splits import Parts, by_name, by_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData(Subset):
    """Settings of every task that reads a person's own files."""

    path: Path | None = None  # the file or folder; if it is not there, its name is looked for in --data-dir
    validation_share: float = 0.1  # of all samples (of those for training, where test ones are named); by class
    test_share: float = 0.2  # of all samples, class by class, where the data do not say which ones test
    data_seed: int = 0  # which samples these are; apart from the seed of the run

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("validation_share", "test_share"):
            share = getattr(self, name)
            require(0 < share < 1, name, f"must lie between 0 and 1, got {share}")
        together = self.validation_share + self.test_share
        require(together < 1, "test_share", f"and validation_share leave nothing to train on: {together:g} of all")
        require(self.data_seed >= 0, "data_seed", f"must not be negative, got {self.data_seed}")
        if self.path is not None:  # a checkpoint may be opened from another folder than the one it was trained in
            object.__setattr__(self, "path", Path(os.path.expanduser(self.path)).absolute())

    def located(self, data_dir: Path | None) -> Path:
        """The file or folder; ArtifactError if it is neither at its path nor in ``data_dir``."""
        if self.path is None:
            hint = "say where your data are: -s task.path=FILE_OR_FOLDER"
            raise ConfigError("task.path is missing", hint=hint)
        places = [self.path, *([data_dir / self.path.name] if data_dir is not None else [])]
        for place in places:
            if os.path.exists(place):
                return place
        if self.path.is_symlink():
            raise ArtifactError(f"{self.path} is a link that leads nowhere", hint="mend the link, or name the file")
        where = "" if data_dir is None else f", and {data_dir} holds no {self.path.name}"
        hint = "check task.path; of data that were moved, --data-dir names the folder they are in now"
        raise ArtifactError(f"{self.path} does not exist{where}", hint=hint)

    def divided(self, path: Path, labels: np.ndarray, named: Sequence[object] | None) -> Parts:
        """Which of the samples train, validate and test.

        labels: (n,) classes. named: of every sample the part that the data put it into, if they do.
        """
        given = {} if named is None else by_name(path, named)
        return by_share(path, labels, given, self.validation_share, self.test_share, self.data_seed)

    def assembled(self, spec: Spec, splits: dict[str, Split], remarks: list[str], notes: dict[str, float]) -> Data:
        """The data to use. splits: all samples of the three parts; remarks: what was understood, in sentences."""
        test = splits["test"]
        notes = notes | {
            "test_share_of_largest_class": test.labels.bincount().max().item() / len(test),
            "test_share_also_in_training": shared(splits["train"], test),
        }
        unseen = (splits["train"].labels.bincount(minlength=spec.classes or 0) == 0).nonzero().ravel().tolist()
        if unseen:
            names = ", ".join(spec.class_names[number] if spec.class_names else str(number) for number in unseen)
            remarks = [*remarks, f"no training sample is of: {names}; a model cannot learn these classes"]
        return self.apply(Data(spec=spec, **splits, notes=notes, remarks=tuple(remarks)))


def make_splits(stored: np.ndarray, labels: np.ndarray, lengths: np.ndarray | None, parts: Parts) -> dict[str, Split]:
    return {
        name: Split(
            inputs=torch.from_numpy(stored[index]),
            labels=torch.from_numpy(labels[index]),
            lengths=None if lengths is None else torch.from_numpy(lengths[index]),
        )
        for name, index in parts.items()
    }


def shared(train: Split, test: Split) -> float:
    """The share of test inputs that equal a training input."""
    known = {hash(row.tobytes()) for row in train.inputs.numpy()}
    return sum(hash(row.tobytes()) in known for row in test.inputs.numpy()) / len(test)


def require_file(path: Path) -> None:
    """``path`` is a plain file, or a link to one: opening a pipe would wait for whoever writes into it."""
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", hint="check the path")
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder, expected a file", hint="give the path of the file itself")
    if not path.is_file():
        raise ArtifactError(f"{path} is no regular file and was not opened", hint="copy it to a file first")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty", hint="was it written completely?")


def require_memory(path: Path, size: int) -> None:
    """So many bytes can be had; to be asked before anything is read."""
    free = min(memory(), free_memory(torch.device("cpu")) or memory())
    if size > free:
        message = f"{path} asks for {size / 2**30:,.1f} GiB of memory, {free / 2**30:,.1f} GiB are free"
        raise ArtifactError(
            message, hint="is it the file that was meant? If it is, keep a part of it in a smaller file"
        )
