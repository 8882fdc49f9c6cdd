"""Arrays of a person's own: tokens or values with labels, perhaps lengths, a grid, and who is tested."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec
from attnprobe.tasks.own.array_files import read_arrays
from attnprobe.tasks.own.labels import classes_of
from attnprobe.tasks.own.sequences import tokens
from attnprobe.tasks.own.source import OwnData, make_splits
from attnprobe.tasks.own.values import described, values

AXES = "(n, length) of tokens or values, (n, length, channels), or (n, height, width, channels)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays(OwnData):
    """Arrays of an .npz or .safetensors file: inputs, labels, and perhaps lengths, grid, split and class_names.

    Whole numbers of two axes, without a grid, are tokens; all else are values, which the model sees with zero mean and
    unit variance.
    """

    inputs: str = "inputs"  # name of the array of tokens or values: a row per sample, then positions, then channels
    labels: str = "labels"  # name of the array of classes, by number or by name
    lengths: str = "lengths"  # name of the array of numbers of real positions; what stands behind them is padding
    split: str = "split"  # name of the array that says train, validation or test (or 0, 1, 2) of every sample
    kind: Literal["auto", "tokens", "values"] = "auto"  # auto: whole numbers of two axes, without a grid, are tokens
    grid: tuple[int, int] | None = None  # height and width where positions are pixels; None: as the array "grid" says

    def __post_init__(self) -> None:
        super().__post_init__()
        possible = self.grid is None or min(self.grid) > 0
        require(possible, "grid", f"must be two numbers above zero, got {list(self.grid or ())}")

    def load(self, data_dir: Path | None = None) -> Data:
        path = self.located(data_dir)
        optional = [self.lengths, self.split, "grid", "class_names"]
        arrays = read_arrays(path, [self.inputs, self.labels], optional)
        inputs, grid = self._shaped(path, arrays)
        lengths = read_lengths(path, arrays.get(self.lengths), *inputs.shape[:2])
        names = [str(name) for name in arrays.get("class_names", np.array([])).ravel()]
        labels, classes = classes_of(path, f"labels {self.labels!r}", column(path, self.labels, arrays, inputs), names)
        named = column(path, self.split, arrays, inputs) if self.split in arrays else None
        parts = self.divided(path, labels, named)
        common = {"length": inputs.shape[1], "classes": len(classes), "grid": grid, "class_names": classes}
        real = None if lengths is None else np.arange(inputs.shape[1]) < lengths[:, None]
        plain = grid is None and arrays[self.inputs].ndim == 2
        if self._are_tokens(inputs, plain=plain):
            ids, count = tokens(path, inputs[..., 0], real)
            spec, stored = Spec(vocabulary=count, **common), ids
        else:
            stored = values(path, inputs, real)
            spec = Spec(**described(path, stored, real, parts["train"]), **common)
        splits = make_splits(stored, labels, lengths, parts)
        given = f"array {self.split!r}" if named is not None else f"drawn by task.data_seed={self.data_seed}"
        remarks = [
            f"inputs: array {self.inputs!r}, {'tokens' if spec.is_tokens else 'values'} of type {inputs.dtype}",
            f"labels: array {self.labels!r}; split: {given}",
            f"lengths: {'all alike' if lengths is None else f'array {self.lengths!r}'}",
        ]
        return self.assembled(spec, splits, remarks, {})

    def _shaped(self, path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Inputs (n, length, channels), and the grid of their positions."""
        inputs = arrays[self.inputs]
        if inputs.dtype.kind not in "biuf":
            hint = "tokens are whole numbers; a table of texts is for attnprobe train table"
            raise ArtifactError(f"{path}: {self.inputs!r} holds texts, expected numbers", hint=hint)
        shape = inputs.shape
        if len(shape) not in (2, 3, 4) or 0 in shape:
            raise ArtifactError(f"{path}: {self.inputs!r} has the shape {shape}", hint=f"expected {AXES}")
        grid = self.grid or stored_grid(path, arrays.get("grid"))
        grid = grid or (shape[1:3] if len(shape) == 4 else None)
        if grid is not None and len(shape) > 2 and shape[1:3] == grid:  # rows and columns are axes of their own
            inputs = inputs.reshape(shape[0], grid[0] * grid[1], -1)
        inputs = inputs.reshape(*inputs.shape[:2], -1)
        if grid is not None and grid[0] * grid[1] != inputs.shape[1]:
            message = f"{path}: a grid of {grid[0]} x {grid[1]} has not the {inputs.shape[1]} positions of the inputs"
            raise ArtifactError(message, hint="set task.grid=[HEIGHT,WIDTH], or leave the array 'grid' out of the file")
        return inputs, grid

    def _are_tokens(self, inputs: np.ndarray, *, plain: bool) -> bool:
        """inputs: (n, length, channels). plain: whether they came with two axes and no grid."""
        if self.kind == "tokens" and inputs.shape[2] > 1:
            raise ArtifactError(f"tokens have no channels, found {inputs.shape[2]}", hint="use task.kind=values")
        return self.kind == "tokens" or (self.kind == "auto" and inputs.dtype.kind in "iu" and plain)


def column(path: Path, name: str, arrays: dict[str, np.ndarray], inputs: np.ndarray) -> list[Any]:
    """The array ``name`` as one plain value per sample."""
    array = arrays[name]
    if array.size != len(inputs) or array.shape[:1] != (len(inputs),):
        message = f"{path}: {name!r} has the shape {array.shape}, expected one entry for each of {len(inputs)} samples"
        raise ArtifactError(message, hint="inputs, labels, lengths and split run over the same samples")
    entries = array.ravel().tolist()
    with reading(path, hint=f"save {name!r} as texts or numbers"):
        return [entry.decode("utf-8") for entry in entries] if array.dtype.kind == "S" else entries


def stored_grid(path: Path, array: np.ndarray | None) -> tuple[int, int] | None:
    if array is None:
        return None
    if array.shape != (2,) or array.dtype.kind not in "iu" or array.min() < 1:
        raise ArtifactError(f"{path}: 'grid' is no pair of whole numbers", hint="it holds height and width, in pixels")
    return int(array[0]), int(array[1])


def read_lengths(path: Path, array: np.ndarray | None, n: int, length: int) -> np.ndarray | None:
    """(n,) int64; None if all sequences are full."""
    if array is None:
        return None
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise ArtifactError(f"{path}: lengths are no {n} whole numbers", hint="give the real positions of every sample")
    wrong = np.flatnonzero((array < 1) | (array > length))
    if len(wrong):
        message = f"{path}: sample {wrong[0] + 1} has the length {array[wrong[0]]}, expected 1 to {length}"
        raise ArtifactError(message, hint="lengths count the real positions, which come first")
    return None if (array == length).all() else array.astype(np.int64)
