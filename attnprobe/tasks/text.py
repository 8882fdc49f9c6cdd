"""IMDb film reviews as sequences of characters: is the review positive? (Maas et al. 2011; the LRA's Text task.)"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.characters import Vocabulary, count_characters, make_vocabulary
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from attnprobe.tasks.sources.copies import files_of, find

LABELS = ("neg", "pos")
PER_CLASS = 12_500  # reviews of each split
HELD_OUT = 0.1
SPLIT_SEED = 42
MAX_BYTES = 1 << 20  # of one review; the longest published one has about 14 000
HINT = "run `attnprobe data verify text`, then get the data again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Subset):
    max_length: int = 4096  # positions, the end sign included; the papers say 2048, their code has 4096
    min_frequency: int = 15  # rarer characters of the training set share one id
    validation: Literal["held_out", "test"] = "held_out"  # test: selects on the test set, as was published

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length >= 2, "max_length", f"must be at least 2, got {self.max_length}")
        require(self.min_frequency >= 1, "min_frequency", f"must be at least 1, got {self.min_frequency}")

    def load(self, data_dir: Path | None = None) -> Data:
        _, folder = find(TASK_SOURCES["text"], data_dir)
        texts, labels = read_reviews(folder / "train")
        test_texts, test_labels = read_reviews(folder / "test")
        order = np.random.RandomState(SPLIT_SEED).permutation(len(texts))
        held_out = 0 if self.validation == "test" else round(HELD_OUT * len(texts))
        chosen, others = order[: len(order) - held_out], order[len(order) - held_out :]
        training = [texts[i] for i in chosen]
        vocabulary = make_vocabulary(count_characters(training, self.max_length), self.min_frequency)
        train, cut = self._split(training, labels[chosen], vocabulary)
        test, cut_test = self._split(test_texts, test_labels, vocabulary)
        validation, cut_validation = test, cut_test
        if self.validation == "held_out":
            validation, cut_validation = self._split([texts[i] for i in others], labels[others], vocabulary)
        size, symbols = len(vocabulary), vocabulary.symbols()
        data = Data(
            spec=Spec(length=self.max_length, classes=len(LABELS), vocabulary=size, symbols=symbols),
            train=train,
            validation=validation,
            test=test,
            notes={
                "truncated_share_train": cut / len(train),
                "truncated_share_validation": cut_validation / len(validation),
                "truncated_share_test": cut_test / len(test),
            },
        )
        return self.apply(data)

    def _split(self, texts: list[str], labels: np.ndarray, vocabulary: Vocabulary) -> tuple[Split, int]:
        encoded = vocabulary.encode(texts, len(texts), self.max_length)
        inputs, lengths = encoded.tensors()
        return Split(inputs=inputs, labels=torch.from_numpy(labels), lengths=lengths), encoded.truncated


def read_reviews(folder: Path) -> tuple[list[str], np.ndarray]:
    """The texts of one split, negative ones first and by file name, and their labels (n,): 0 negative, 1 positive."""
    texts: list[str] = []
    for label in LABELS:
        paths = files_of(folder / label, ".txt")
        if len(paths) != PER_CLASS:
            raise ArtifactError(f"{folder / label} holds {len(paths)} reviews, expected {PER_CLASS}", hint=HINT)
        texts += [read_review(path) for path in paths]
    return texts, np.repeat(np.arange(len(LABELS)), PER_CLASS)


def read_review(path: Path) -> str:
    """One review, its line ends as they are stored."""
    with reading(path, HINT), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
        if not 0 < len(content) <= MAX_BYTES:
            found = "is empty" if not content else f"has more than {MAX_BYTES} bytes, which no review has"
            raise ArtifactError(f"{path} {found}", hint=HINT)
        return content.decode("utf-8")
