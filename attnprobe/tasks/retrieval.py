"""AAN: two papers as sequences of characters, does one cite the other? (Radev et al. 2013; the LRA's Retrieval task.)

Every sample is a pair, so inputs are (n, 2, length); see ``Spec.pairs``.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.tasks.characters import Vocabulary, count_characters, make_vocabulary
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from attnprobe.tasks.sources.copies import find, read_rows

CLASSES = 2
COLUMNS = ("label", "first id", "second id", "first text", "second text")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}

# Published texts may hold line breaks, but none that begins like a row: there, an open quote has swallowed one.
ANOTHER_ROW = re.compile(r"[\r\n][01](\.0)?\t[^\t\r\n]*\t[^\t\r\n]*\t")
HINT = "run `attnprobe data verify retrieval`, then mend the row or get the file again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Subset):
    max_length: int = 4000  # positions of each text, the end sign included
    min_frequency: int = 1  # rarer characters of the training set share one id

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length >= 2, "max_length", f"must be at least 2, got {self.max_length}")
        require(self.min_frequency >= 1, "min_frequency", f"must be at least 1, got {self.min_frequency}")

    def load(self, data_dir: Path | None = None) -> Data:
        _, folder = find(TASK_SOURCES["retrieval"], data_dir)
        train_path = folder / "new_aan_pairs.train.tsv"
        # The file is read twice rather than kept: its texts would fill several gigabytes.
        vocabulary = make_vocabulary(count_characters(read_texts(train_path), self.max_length), self.min_frequency)
        train, cut = self._split(train_path, vocabulary)
        validation, cut_validation = self._split(folder / "new_aan_pairs.eval.tsv", vocabulary)
        test, cut_test = self._split(folder / "new_aan_pairs.test.tsv", vocabulary)
        data = Data(
            spec=Spec(
                length=self.max_length,
                classes=CLASSES,
                vocabulary=len(vocabulary),
                pairs=True,
                symbols=vocabulary.symbols(),
            ),
            train=train,
            validation=validation,
            test=test,
            notes={
                "truncated_share_train": cut,
                "truncated_share_validation": cut_validation,
                "truncated_share_test": cut_test,
            },
        )
        return self.apply(data)

    def _split(self, path: Path, vocabulary: Vocabulary) -> tuple[Split, float]:
        """The pairs of one file and the share of texts that were cut."""
        labels = np.array([LABELS[row[0]] for row in read_pairs(path)], np.int64)
        n = len(labels)
        encoded = vocabulary.encode(read_texts(path), 2 * n, self.max_length)
        inputs, lengths = encoded.tensors()
        split = Split(
            inputs=inputs.view(n, 2, self.max_length), labels=torch.from_numpy(labels), lengths=lengths.view(n, 2)
        )
        return split, encoded.truncated / (2 * n)


def read_texts(path: Path) -> Iterator[str]:
    """First text, second text, first text of the next pair and so on."""
    for row in read_pairs(path):
        yield row[3]
        yield row[4]


def read_pairs(path: Path) -> Iterator[list[str]]:
    """The rows of one file, checked; at least one."""
    number = 0
    for number, row in enumerate(read_rows(path), start=1):
        if len(row) != len(COLUMNS):
            raise ArtifactError(
                f"{path}, row {number} has {len(row)} columns, expected {', '.join(COLUMNS)}", hint=HINT
            )
        if row[0] not in LABELS:
            raise ArtifactError(f"{path}, row {number} has the label {row[0]!r}, expected 0.0 or 1.0", hint=HINT)
        if any("\t" in field and ANOTHER_ROW.search(field) for field in row[3:]):
            raise ArtifactError(f"{path}, row {number} has another row in a quoted text: its quote is open", hint=HINT)
        yield row
    if number == 0:
        raise ArtifactError(f"{path} holds no pairs", hint=HINT)
