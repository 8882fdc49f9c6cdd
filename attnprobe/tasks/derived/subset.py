"""How much of a published data set is used, and with how many wrong labels: the same rule for every task."""

import dataclasses

import numpy as np
import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError
from attnprobe.tasks.data import Data, Outline, Spec, Split

SUBSET_SEED = 42  # Amos et al. 2023, data-scale study: prefixes of numpy's RandomState(42).permutation
NOISE_SEED = 43


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSubset:
    """Settings that every task inherits.

    Smaller training sets are prefixes of larger ones, and more label noise keeps the wrong labels of less noise, so
    that curves over either compare nested sets. Labels of validation and test data are never touched.
    """

    fraction: float | None = None  # share of the training samples that is used; None = all
    label_noise: float = 0.0  # each training label is, with this probability, replaced by one of the other classes

    def __post_init__(self) -> None:
        share = self.fraction is None or 0 < self.fraction <= 1
        require(share, "fraction", f"must be above 0 and at most 1, got {self.fraction}")
        noise = 0 <= self.label_noise < 1
        require(noise, "label_noise", f"must be at least 0 and below 1, got {self.label_noise}")

    def apply(self, data: Data) -> Data:
        """The training samples to use, labels as they are to be seen; the whole data are not copied."""
        train = data.train
        if self.label_noise > 0:
            labels = torch.from_numpy(noisy_labels(train.labels.numpy(), data.spec.classes, self.label_noise))
            train = dataclasses.replace(train, labels=labels)
        count = None if self.fraction is None else self._share(len(train))
        return dataclasses.replace(data, train=limited(train, count, "fraction"))

    def outline(self) -> Outline | None:
        """See ``Task.outline``; tasks that draw their data can say more than this None."""
        return None

    def _outline(self, spec: Spec, n_train: int, n_validation: int, n_test: int) -> Outline:
        """The outline of data of which ``apply`` keeps a share."""
        sizes = {"train": self._share(n_train), "validation": n_validation, "test": n_test}
        return Outline(spec=spec, sizes=sizes)

    def _share(self, available: int) -> int:
        return available if self.fraction is None else max(1, int(self.fraction * available))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset(TrainingSubset):
    """Settings that every task read from files inherits: numbers of samples as well."""

    n_train: int | None = None  # number of training samples; None = all
    n_validation: int | None = None  # number of validation samples; None = all
    n_test: int | None = None  # number of test samples; None = all

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_train", "n_validation", "n_test")
        one = self.n_train is None or self.fraction is None
        require(one, "fraction", "cannot be given together with n_train", hint="drop one of them")

    def apply(self, data: Data) -> Data:
        """The samples of all splits to use."""
        data = super().apply(data)
        return dataclasses.replace(
            data,
            train=limited(data.train, self.n_train, "n_train"),
            validation=limited(data.validation, self.n_validation, "n_validation"),
            test=limited(data.test, self.n_test, "n_test"),
        )


def limited(split: Split, count: int | None, setting: str) -> Split:
    """``count`` samples of the split; ``setting`` is what the person asked for them by."""
    if count is None:
        return split
    if count > len(split):
        raise ConfigError(
            f"task.{setting} can be at most {len(split)}, got {count}",
            hint="choose a smaller number, or leave it out to take all",
        )
    return split.take(torch.from_numpy(nested_prefix(len(split), count)))


def nested_prefix(available: int, count: int) -> np.ndarray:
    """(count,) indices below ``available``: a larger count begins with the indices of a smaller one."""
    return np.random.RandomState(SUBSET_SEED).permutation(available)[:count]


def noisy_labels(labels: np.ndarray, classes: int, probability: float) -> np.ndarray:
    """(n,) labels of which each is wrong with ``probability``, uniformly among the other classes."""
    generator = np.random.default_rng(NOISE_SEED)
    wrong = generator.random(len(labels)) < probability
    other = (labels + generator.integers(1, classes, len(labels))) % classes
    return np.where(wrong, other, labels)
