"""BIDMC: heart rate, respiratory rate or blood oxygen from 32 s of two vital signals, a regression.

Pimentel et al. 2016, in the form of the Monash/UEA/UCR regression archive (Tan et al. 2021). As in Amos et al. 2023 the
archive's two files are joined and shuffled into 70/15/15 %. The windows of one patient overlap and are thereby spread
over all three splits, so the error does not speak for patients never seen.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.pooling import require_downsample, shorten
from attnprobe.tasks.sources.copies import find
from attnprobe.tasks.subset import Subset

LENGTH, CHANNELS = 4000, 2
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
        parts = [read_ts(folder / f"BIDMC32{self.target}_{part}.ts") for part in ("TRAIN", "TEST")]
        signals, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        signals = shorten(signals, self.downsample, axes=(1,))
        train, validation, test = split_indices(len(labels))
        if self.rescale_targets:
            labels = rescaled(labels, labels[train])
        mean, std = (0.0,) * CHANNELS, (1.0,) * CHANNELS
        if self.standardise:
            used = signals[train].astype(np.float64)
            mean, std = tuple(used.mean((0, 1)).tolist()), tuple(used.std((0, 1)).tolist())
        data = Data(
            spec=Spec(length=signals.shape[1], classes=1, channels=CHANNELS, mean=mean, std=std, regression=True),
            train=make_split(signals[train], labels[train]),
            validation=make_split(signals[validation], labels[validation]),
            test=make_split(signals[test], labels[test]),
        )
        return self.apply(data)


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
        raise ArtifactError("all training labels are equal, so they cannot be rescaled")
    return (labels - low) / (high - low) * 2 - 1


def read_ts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One .ts file: signals (n, 4000, 2) float32 and labels (n,) float64.

    Lines that begin with # or @ are comments and header; after @data each line holds the channels, separated by colons
    and with values separated by commas, and the label.
    """
    signals: list[np.ndarray] = []
    labels: list[float] = []
    try:
        with path.open(encoding="utf-8") as file:
            begun = False
            for number, line in enumerate(file, start=1):
                line = line.strip()
                if begun and line and not line.startswith("#"):
                    signal, label = read_sample(line, f"{path}, line {number}")
                    signals.append(signal)
                    labels.append(label)
                begun = begun or line.lower() == "@data"
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not text: {error.reason}") from None
    if not signals:
        raise ArtifactError(f"{path} holds no data", hint="download it again")
    return np.stack(signals), np.array(labels)


def read_sample(line: str, origin: str) -> tuple[np.ndarray, float]:
    """One line: (4000, 2) float32 and its label."""
    *channels, label = line.split(":")
    lengths = [channel.count(",") + 1 for channel in channels]
    if lengths != [LENGTH] * CHANNELS:
        raise ArtifactError(f"{origin} has channels of {lengths} values, expected {[LENGTH] * CHANNELS}")
    try:
        signal = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        number = float(label)
    except ValueError as error:
        raise ArtifactError(f"{origin} holds something that is not a number: {error}") from None
    if not (np.isfinite(signal).all() and math.isfinite(number)):
        raise ArtifactError(f"{origin} holds a value that is not finite")
    return np.ascontiguousarray(signal.T), number
