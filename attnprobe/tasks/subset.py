"""How much of a published training set is used, and with how many wrong labels: the same rule for every task."""

import dataclasses

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ConfigError
from attnprobe.tasks.data import Split

SUBSET_SEED = 42  # Amos et al. 2023, data-scale study: prefixes of numpy's RandomState(42).permutation
NOISE_SEED = 43


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSubset:
    """Settings that every task read from files inherits. Validation and test data are never touched.

    Smaller training sets are prefixes of larger ones, and more label noise keeps the wrong labels of less noise, so
    that curves over either compare nested sets.
    """

    n_train: int | None = None  # number of training samples; None = all
    fraction: float | None = None  # or their share of all training samples
    label_noise: float = 0.0  # each training label is, with this probability, replaced by one of the other classes

    def __post_init__(self) -> None:
        require(self.n_train is None or self.n_train > 0, "n_train", f"must be greater than zero, got {self.n_train}")
        share = self.fraction is None or 0 < self.fraction <= 1
        require(share, "fraction", f"must be above 0 and at most 1, got {self.fraction}")
        one = self.n_train is None or self.fraction is None
        require(one, "fraction", "cannot be given together with n_train", hint="drop one of them")
        noise = 0 <= self.label_noise < 1
        require(noise, "label_noise", f"must be at least 0 and below 1, got {self.label_noise}")

    def reduce(self, train: Split, classes: int) -> Split:
        """The training samples to use, with their labels as they are to be seen."""
        if self.label_noise > 0:
            labels = torch.from_numpy(noisy_labels(train.labels.numpy(), classes, self.label_noise))
            train = dataclasses.replace(train, labels=labels)
        if self.n_train is None and self.fraction is None:
            return train
        return train.take(torch.from_numpy(nested_prefix(len(train), self._count(len(train)))))

    def _count(self, available: int) -> int:
        if self.fraction is not None:
            return max(1, int(self.fraction * available))
        assert self.n_train is not None
        if self.n_train > available:
            raise ConfigError(f"task.n_train can be at most {available}, got {self.n_train}")
        return self.n_train


def nested_prefix(available: int, count: int) -> np.ndarray:
    """(count,) indices below ``available``: a larger count begins with the indices of a smaller one."""
    return np.random.RandomState(SUBSET_SEED).permutation(available)[:count]


def noisy_labels(labels: np.ndarray, classes: int, probability: float) -> np.ndarray:
    """(n,) labels of which each is wrong with ``probability``, uniformly among the other classes."""
    generator = np.random.default_rng(NOISE_SEED)
    wrong = generator.random(len(labels)) < probability
    other = (labels + generator.integers(1, classes, len(labels))) % classes
    return np.where(wrong, other, labels)
