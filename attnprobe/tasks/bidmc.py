"""BIDMC: heart rate, respiratory rate or blood oxygen from 32 s of two vital signals, a regression.

Pimentel et al. 2016, in the form of the Monash/UEA/UCR regression archive (Tan et al. 2021). As in Amos et al. 2023 the
archive's two files are joined and shuffled into 70/15/15 %. The windows of one patient overlap and are thereby spread
over all three splits, so the error does not speak for patients never seen. A folder that the code of Amos et al. has
split before, with arrays for each split, is read as well.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.pooling import require_downsample, shorten
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.sources.catalogue import BIDMC_PARTS
from attnprobe.tasks.sources.copies import find

LENGTH, CHANNELS = 4000, 2
PREPARED = "reshuffle"  # folder of a target's split copy
HINT = "get the file again, see `attnprobe data list`"
EVALUATION_SHARE = 0.3  # one half validates, the other tests


@dataclasses.dataclass(frozen=True, kw_only=True)
class BIDMC(Subset):
    target: Literal["RR", "HR", "SpO2"] = "HR"  # breaths or beats per minute, or per cent
    rescale_targets: bool = True  # training labels span [-1, 1]; published runs do so after self-pretraining only
    standardise: bool = False  # zero mean and unit variance of each channel; published runs take the values as stored
    downsample: int = 1  # so many neighbouring values are averaged to one position

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.label_noise == 0, "label_noise", "needs classes, and this task's labels are numbers")
        require_downsample(self.downsample, LENGTH)

    def load(self, data_dir: Path | None = None) -> Data:
        _, folder = find((f"bidmc-{self.target.lower()}",), data_dir)
        parts = [(shorten(signals, self.downsample, axes=(1,)), labels) for signals, labels in self._read(folder)]
        (signals, range_of), *_ = parts
        if self.rescale_targets:
            parts = [(values, rescaled(labels, range_of)) for values, labels in parts]
        mean, std = (0.0,) * CHANNELS, (1.0,) * CHANNELS
        if self.standardise:
            used = signals.astype(np.float64)
            mean, std = tuple(used.mean((0, 1)).tolist()), tuple(used.std((0, 1)).tolist())
        train, validation, test = (make_split(*part) for part in parts)
        spec = Spec(length=signals.shape[1], classes=1, channels=CHANNELS, mean=mean, std=std, regression=True)
        return self.apply(Data(spec=spec, train=train, validation=validation, test=test))

    def _read(self, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
        """Signals and labels of the three splits, from the archive's files or from a copy that was split before."""
        files = [folder / f"BIDMC32{self.target}_{part}.ts" for part in ("TRAIN", "TEST")]
        if not all(file.exists() for file in files):
            return [read_prepared(folder / self.target / PREPARED, part) for part in BIDMC_PARTS]
        parts = [read_ts(file) for file in files]
        signals, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return [(signals[index], labels[index]) for index in split_indices(len(labels))]


def make_split(signals: np.ndarray, labels: np.ndarray) -> Split:
    return Split(inputs=torch.from_numpy(signals), labels=torch.from_numpy(labels.astype(np.float32)))


def split_indices(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test indices: those of scikit-learn's train_test_split, seeds 0 and then 1.

    It permutes with RandomState(seed) and puts the first ceil(share n) into the second part.
    """
    order = np.random.RandomState(0).permutation(n)
    n_evaluation = math.ceil(EVALUATION_SHARE * n)
    evaluation, train = order[:n_evaluation], order[n_evaluation:]
    order = np.random.RandomState(1).permutation(n_evaluation)
    n_test = math.ceil(n_evaluation / 2)
    return train, evaluation[order[n_test:]], evaluation[order[:n_test]]


def rescaled(labels: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Map the range of the absolute training labels to [-1, 1]."""
    low, high = np.abs(training).min(), np.abs(training).max()
    if high == low:
        raise ArtifactError(
            "all training labels are equal, so they cannot be rescaled", hint="set rescale_targets to false"
        )
    return (labels - low) / (high - low) * 2 - 1


def read_ts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One .ts file: signals (n, 4000, 2) float32 and labels (n,) float64.

    Lines that begin with # or @ are comments and header; after @data each line holds the channels, separated by colons
    and with values separated by commas, and the label.
    """
    signals: list[np.ndarray] = []
    labels: list[float] = []
    with reading(path, HINT), path.open(encoding="utf-8") as file:
        begun = False
        for number, whole in enumerate(file, start=1):
            line = whole.strip()
            if begun and line and not line.startswith("#"):
                if not whole.endswith("\n"):
                    hint = f"{HINT}; if it is whole, add a line end to it"
                    raise ArtifactError(f"{path}, line {number} has no end: its label may be cut", hint=hint)
                signal, label = read_sample(line, f"{path}, line {number}")
                signals.append(signal)
                labels.append(label)
            begun = begun or line.lower() == "@data"
    if not signals:
        raise ArtifactError(f"{path} holds no data", hint=HINT)
    return np.stack(signals), np.array(labels)


def read_sample(line: str, origin: str) -> tuple[np.ndarray, float]:
    """One line: (4000, 2) float32 and its label."""
    *channels, label = line.split(":")
    lengths = [channel.count(",") + 1 for channel in channels]
    if lengths != [LENGTH] * CHANNELS:
        raise ArtifactError(f"{origin} has channels of {lengths} values, expected {[LENGTH] * CHANNELS}", hint=HINT)
    try:
        signal = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        number = float(label)
    except ValueError as error:
        raise ArtifactError(f"{origin} holds something that is not a number: {error}", hint=HINT) from None
    if not (np.isfinite(signal).all() and math.isfinite(number)):
        raise ArtifactError(f"{origin} holds a value that is not finite", hint=HINT)
    return np.ascontiguousarray(signal.T), number


def read_prepared(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """One split of a prepared copy: signals (n, 4000, 2) float32 and labels (n,) float64."""
    signals = read_npy(folder / f"{part}x.npy", (LENGTH, CHANNELS)).astype(np.float32)
    labels = read_npy(folder / f"{part}y.npy", ()).astype(np.float64)
    if len(signals) != len(labels):
        raise ArtifactError(f"{folder} has {len(signals)} signals and {len(labels)} labels in {part}", hint=HINT)
    for values, axis in ((signals, "x"), (labels, "y")):
        if not np.isfinite(values).all():
            raise ArtifactError(f"{folder / part}{axis}.npy holds a value that is not finite", hint=HINT)
    return signals, labels


def read_npy(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A saved array (n, *shape) of floats, left in its file: header and size agree before anything is allocated."""
    with reading(path, HINT):
        array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind != "f" or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
            found = f"{array.dtype} of shape {array.shape}"
            raise ArtifactError(f"{path} holds {found}, expected numbers of shape {('n', *shape)}", hint=HINT)
        if path.stat().st_size != array.offset + array.nbytes:
            raise ArtifactError(f"{path} has more bytes than it announces", hint=HINT)
    return array
