"""Tables of a person's own: a column of texts or of tokens, and a column of classes."""

import dataclasses
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attnprobe.config import require
from attnprobe.errors import ArtifactError, shown
from attnprobe.tasks.data import Data, Spec
from attnprobe.tasks.own.columns import Columns, choice, read_columns, setting
from attnprobe.tasks.own.labels import classes_of, is_missing
from attnprobe.tasks.own.sequences import SHIFT, padded, require_tokens
from attnprobe.tasks.own.source import OwnData, make_splits
from attnprobe.tasks.own.texts import encoder, with_end

USUAL_TEXTS, USUAL_TOKENS = ("text", "sentence", "content"), ("tokens", "input_ids")  # names of columns
SPLIT = "split"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(OwnData):
    """A CSV, TSV, Parquet or Arrow file, or a folder saved by the library ``datasets``."""

    text: str | None = None  # the column of texts; None = text, sentence or content, unless tokens names a column
    tokens: str | None = None  # the column of whole numbers, in lists or separated by blanks or commas, instead of text
    label: str = "label"  # the column of classes, by number or by name
    split: str | None = None  # the column that says train, validation or test of every row; None = split, if there is
    unit: Literal["characters", "bytes", "words"] = "characters"  # what of a text is a position; words: between blanks
    max_length: int = 1024  # most positions of a sequence; of texts the end sign included
    too_long: Literal["truncate", "refuse"] = "truncate"  # what becomes of longer ones
    missing: Literal["refuse", "drop"] = "refuse"  # what becomes of rows without text, tokens or label
    min_frequency: int = 1  # rarer characters or words of the training texts share one id
    separator: str | None = None  # of columns in CSV and TSV; None = as the file's ending says
    quotes: bool = True  # false: double quotes in CSV and TSV are characters like others

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length >= 2, "max_length", f"must be at least 2, got {self.max_length}")
        require(self.min_frequency >= 1, "min_frequency", f"must be at least 1, got {self.min_frequency}")
        require(self.text is None or self.tokens is None, "tokens", "cannot be given together with text")
        one = self.separator is None or (len(self.separator) == 1 and self.separator not in '"\r\n')
        require(one, "separator", f"must be one character and no quote, got {shown(self.separator)}")

    def load(self, data_dir: Path | None = None) -> Data:
        path = self.located(data_dir)
        table = read_columns(
            path, lambda names: self._columns(path, names), separator=self.separator, quotes=self.quotes
        )
        table, dropped = self._complete(path, table)
        source, *splitting, label = table.values
        labels, classes = classes_of(path, f"labels {label!r}", table.values[label], table.class_names)
        named = table.values[splitting[0]] if splitting else table.parts
        parts = self.divided(path, labels, named)
        are_texts = self._source(list(table.values))[1]
        rows = table.values[source]
        ids, count, cut = self._texts(path, rows, parts["train"]) if are_texts else self._tokens(path, rows)
        lengths = np.array([len(sequence) for sequence in ids], np.int64)
        length = int(lengths.max())
        inputs = padded(ids, length, count)
        spec = Spec(length=length, classes=len(classes), vocabulary=count, class_names=classes)
        splits = make_splits(inputs, labels, None if (lengths == length).all() else lengths, parts)
        notes = {f"truncated_share_{part}": float(cut[index].mean()) for part, index in parts.items()}
        said = f"column {splitting[0]!r}" if splitting else "by its files" if named else ""
        remarks = [
            f"inputs: column {source!r}, {f'texts by their {self.unit}' if are_texts else 'tokens'}",
            f"labels: column {label!r}; split: {said or f'drawn by task.data_seed={self.data_seed}'}",
            f"rows: {len(rows) + dropped} read, {dropped} dropped because something is missing, {cut.sum()} cut",
        ]
        if table.passed_by:
            remarks.append(f"parts passed by: {', '.join(table.passed_by)}")
        return self.assembled(spec, splits, remarks, notes)

    def _columns(self, path: Path, names: Sequence[str]) -> list[str]:
        """The columns to read: of inputs, perhaps of splits, of labels."""
        if len(set(names)) < len(names):
            raise ArtifactError(f"{path} has several columns of one name", hint="rename one of them")
        source, are_texts = self._source(names)
        chosen = [choice(path, names, source, setting("text" if are_texts else "tokens"))]
        if self.split is not None:
            chosen.append(choice(path, names, self.split, setting("split")))
        elif SPLIT in names and SPLIT not in (source, self.label):
            chosen.append(SPLIT)
        chosen.append(choice(path, names, self.label, setting("label")))
        if len(set(chosen)) < len(chosen):
            raise ArtifactError(f"{path}: one column cannot be two things", hint=f"chosen are {', '.join(chosen)}")
        return chosen

    def _source(self, names: Sequence[str]) -> tuple[str, bool]:
        """The column of inputs, and whether it holds texts."""
        if self.tokens is not None or self.text is not None:
            return (self.tokens, False) if self.text is None else (self.text, True)  # pyright: ignore[reportReturnType]
        usual = [name for name in (*USUAL_TEXTS, *USUAL_TOKENS) if name in names and name != self.label]
        return (usual[0], usual[0] in USUAL_TEXTS) if usual else (USUAL_TEXTS[0], True)

    def _complete(self, path: Path, table: Columns) -> tuple[Columns, int]:
        """The rows that have inputs and a label, and how many have not.

        Where no label may be missing, it is ``classes_of`` that says so.
        """
        source, *_, label = table.values
        lacking = [is_missing(value) for value in table.values[source]]
        if self.missing == "refuse" and any(lacking):
            message = (
                f"{path}: column {source!r} is empty in {sum(lacking)} rows, first in row {1 + lacking.index(True)}"
            )
            raise ArtifactError(message, hint="fill or remove these rows, or leave them out: -s task.missing=drop")
        if self.missing == "refuse":
            return table, 0
        nothing = (-1, "-1") if table.class_names else ()  # what such tables write for labels that nobody knows
        pairs = zip(lacking, table.values[label], strict=True)
        kept = [not (lacks or is_missing(value) or value in nothing) for lacks, value in pairs]
        if not any(kept):
            raise ArtifactError(f"{path} has no row with both input and label", hint="are these the right columns?")
        values = {name: list(compress(column, kept)) for name, column in table.values.items()}
        parts = None if table.parts is None else list(compress(table.parts, kept))
        return dataclasses.replace(table, values=values, parts=parts), len(kept) - sum(kept)

    def _texts(self, path: Path, rows: Sequence[Any], train: np.ndarray) -> tuple[list[np.ndarray], int, np.ndarray]:
        """Ids of every row, how many ids there are, and which rows were cut (n,)."""
        wrong = next((row for row, value in enumerate(rows) if not isinstance(value, str)), None)
        if wrong is not None:
            hint = "choose a column of texts by -s task.text=NAME, or one of tokens by -s task.tokens=NAME"
            raise ArtifactError(f"{path}, row {wrong + 1} holds {shown(rows[wrong])}, which is no text", hint=hint)
        encode, count = encoder(self.unit, [rows[i] for i in train], self.max_length, self.min_frequency)
        ids = [encode(text) for text in rows]
        cut = self._too_long(path, [len(sequence) + 1 for sequence in ids])
        return [with_end(sequence, self.max_length) for sequence in ids], count, cut

    def _tokens(self, path: Path, rows: Sequence[Any]) -> tuple[list[np.ndarray], int, np.ndarray]:
        """As ``_texts``, of rows of tokens."""
        found = [row_of_tokens(path, row, value) for row, value in enumerate(rows, start=1)]
        cut = self._too_long(path, [len(sequence) for sequence in found])
        count = require_tokens(path, max(int(sequence.max()) for sequence in found))
        return [sequence[: self.max_length] + SHIFT for sequence in found], count, cut

    def _too_long(self, path: Path, lengths: Sequence[int]) -> np.ndarray:
        """(n,) bool."""
        cut = np.array(lengths) > self.max_length
        if self.too_long == "refuse" and cut.any():
            row = int(cut.argmax())
            message = f"{path}: {cut.sum()} rows are too long, first row {row + 1} with {lengths[row]} positions"
            raise ArtifactError(message, hint=f"raise task.max_length={self.max_length}, or set task.too_long=truncate")
        return cut


def row_of_tokens(path: Path, row: int, value: Any) -> np.ndarray:
    """(at least 1,) int64 of a list, or of a text such as "5 3 8", "5,3,8" or "[5, 3, 8]"."""
    hint = "tokens are whole numbers from 0 on, in lists or separated by blanks or commas"
    try:
        entries = value.strip("[] ").replace(",", " ").split() if isinstance(value, str) else list(value)
        if not all(isinstance(entry, str) or type(entry) is int for entry in entries):
            raise ValueError
        numbers = np.array([int(entry) for entry in entries], np.int64)
    except (ValueError, TypeError, OverflowError):
        message = f"{path}, row {row} holds {shown(value)}, expected whole numbers"
        raise ArtifactError(message, hint=hint) from None
    if not len(numbers) or numbers.min() < 0:
        what = f"the negative token {numbers.min()}" if len(numbers) else "no tokens"
        raise ArtifactError(f"{path}, row {row} has {what}", hint=hint)
    return numbers
