"""What every task hands over: tensors for three splits and a description of the inputs."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

MASK_ID = 0  # the token id that stands for a hidden position in every vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model must know about a task's inputs and labels; plain data, kept in every checkpoint."""

    length: int  # positions per sequence (the longest one where lengths differ)
    classes: int  # width of the label head; 1 if the label is a number
    channels: int = 1  # real values per position; unused by token tasks
    vocabulary: int | None = None  # number of token ids including MASK_ID; None = real-valued inputs
    levels: int | None = None  # stored values are the integers 0 .. levels - 1 (grey levels); None = continuous
    mean: tuple[float, ...] = (0.0,)  # per channel, in stored units: the model sees (stored - mean) / std
    std: tuple[float, ...] = (1.0,)
    grid: tuple[int, int] | None = None  # (height, width) if positions are the pixels of an image, row by row
    pairs: bool = False  # every sample is two sequences with one label: inputs (n, 2, length), lengths (n, 2)
    regression: bool = False  # labels are float32 numbers to be predicted, not classes
    class_names: tuple[str, ...] = ()  # in the order of the labels; empty = classes are known by their numbers
    # what each token id is called, as far as is known: a character, an operator, or <mask>, <pad>, <unk>, <eos>; says
    # nothing about whether data fit a model
    symbols: tuple[str, ...] | None = dataclasses.field(default=None, compare=False)

    @property
    def is_tokens(self) -> bool:
        return self.vocabulary is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    inputs: Tensor  # (batch, length) token ids or (batch, length, channels) stored values; pairs: (batch, 2, length)
    labels: Tensor  # (batch,) int64, or float32 for a regression
    sample: Tensor  # (batch,) int64 position in the split: the counter of the mask hash
    valid: Tensor | None = None  # (batch, length) bool, True = real position; None = no padding; pairs: as inputs

    def __len__(self) -> int:
        return len(self.labels)

    def unpaired(self) -> "Batch":
        """A batch of pairs as (2 * batch) plain sequences: the two of a pair become neighbours, each with a sample
        number of its own and both with the pair's label.
        """
        both = torch.stack([2 * self.sample, 2 * self.sample + 1], dim=1).flatten()
        valid = None if self.valid is None else self.valid.flatten(0, 1)
        return Batch(
            inputs=self.inputs.flatten(0, 1), labels=self.labels.repeat_interleave(2), sample=both, valid=valid
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Sequences of one split, kept whole on one device."""

    inputs: Tensor  # (n, length) or (n, length, channels), in the smallest type that holds them; pairs: (n, 2, length)
    labels: Tensor  # (n,) int64, or float32 for a regression
    lengths: Tensor | None = None  # (n,) int64 number of real positions; None = all full; pairs: (n, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Split(inputs=self.inputs.to(device), labels=self.labels.to(device), lengths=lengths)

    def batch(self, index: Tensor) -> Batch:
        """Gather the samples ``index`` (batch,), an int64 tensor on the split's device."""
        valid = None
        if self.lengths is not None:
            length = self.inputs.shape[self.lengths.dim()]
            valid = torch.arange(length, device=index.device) < self.lengths[index][..., None]
        return Batch(inputs=self.inputs[index], labels=self.labels[index], sample=index, valid=valid)

    def head(self, n: int) -> "Split":
        return self.take(slice(n))

    def take(self, index: Tensor | slice) -> "Split":
        """The samples ``index``, in that order."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Split(inputs=self.inputs[index], labels=self.labels[index], lengths=lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    spec: Spec
    train: Split
    validation: Split
    test: Split
    notes: dict[str, float] = dataclasses.field(default_factory=dict)  # measured while reading, such as truncated_share
    remarks: tuple[str, ...] = ()  # what was understood of a person's own files, in sentences

    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to(self, device: torch.device) -> "Data":
        splits = {name: split.to(device) for name, split in self.splits().items()}
        return dataclasses.replace(self, **splits)

    def fingerprint(self) -> str:
        """SHA-256 over all tensors: two runs with equal fingerprints saw the same data."""
        digest = hashlib.sha256()
        for split in self.splits().values():
            for tensor in (split.inputs, split.labels, split.lengths):
                if tensor is not None:
                    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                    digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """What can be said of a task's data before any of them exist."""

    spec: Spec
    sizes: dict[str, int]  # samples of train, validation and test, as ``Task.load`` returns them


class Task(Protocol):
    """A frozen dataclass of settings that can produce its data."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def load(self, data_dir: Path | None = None) -> Data:
        """Generate or read the three splits; ``data_dir`` is where the user keeps downloaded files."""
        ...

    def outline(self) -> Outline | None:
        """Description and sizes of what ``load`` would return, at once; None where only the files can tell."""
        ...
