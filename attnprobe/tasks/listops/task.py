"""ListOps: the value, 0 to 9, of a nested list of operations on digits (Long Range Arena; Nangia & Bowman 2018).

Generated with the benchmark's grammar or read from its files. Either way parentheses are left out, an expression
ends with <eos>, and the ids are those of ``grammar.VOCABULARY``.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.data import Data, Outline, Spec, Split
from attnprobe.tasks.derived.subset import TrainingSubset
from attnprobe.tasks.listops.grammar import EOS_ID, PAD_ID, VOCABULARY, Expressions, Grammar, draw
from attnprobe.tasks.listops.published import read_published
from attnprobe.tasks.sources.catalogue import LISTOPS_FILES, PUBLISHED_SOURCES
from attnprobe.tasks.sources.copies import find
from attnprobe.tasks.sources.generated import LARGE, in_blocks, keep, read_kept

CLASSES = 10
BLOCK = 1000  # expressions
VERSION = 1  # raise it when the same settings begin to give other data
LEAST_NEW = 0.01  # share of a round's expressions that must not have occurred before


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOps(TrainingSubset, Grammar):
    """The grammar's settings shape generated expressions only; ``max_length`` also cuts published ones, <eos> included.

    All generated expressions differ. When reading, ``n_...`` are upper limits: the first rows of each file.
    """

    source: Literal["generate", "published"] = "generate"  # draw expressions, or read the published files
    n_train: int = 96_000  # number of training samples; another gives other expressions: for nested sets use fraction
    n_validation: int = 2_000  # number of validation samples
    n_test: int = 2_000  # number of test samples
    data_seed: int = 0  # of the drawn data; apart from the seed of the run

    def __post_init__(self) -> None:
        Grammar.__post_init__(self)
        TrainingSubset.__post_init__(self)
        require_positive(self, "n_train", "n_validation", "n_test")
        require(self.data_seed >= 0, "data_seed", f"must not be negative, got {self.data_seed}")

    def load(self, data_dir: Path | None = None) -> Data:
        parts = self._published(data_dir) if self.source == "published" else self._generated()
        train, validation, test = (make_split(parts[name], self.max_length) for name in LISTOPS_FILES)
        notes = {
            f"truncated_share_{name}": float((part.lengths > self.max_length - 1).mean())
            for name, part in parts.items()
            if self.source == "published"  # generated ones are never cut
        }
        return self.apply(Data(spec=self._spec(), train=train, validation=validation, test=test, notes=notes))

    def outline(self) -> Outline | None:
        if self.source == "published":
            return None
        return self._outline(self._spec(), self.n_train, self.n_validation, self.n_test)

    def _spec(self) -> Spec:
        return Spec(length=self.max_length, classes=CLASSES, vocabulary=len(VOCABULARY), symbols=tuple(VOCABULARY))

    def _sizes(self) -> dict[str, int]:
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}

    def _generated(self) -> dict[str, Expressions]:
        sizes = self._sizes()
        total = sum(sizes.values())
        grammar = Grammar(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Grammar)})
        if total < LARGE:
            everything = collect(grammar, total, self.data_seed, workers=1)
        else:
            settings = dataclasses.asdict(grammar) | {"n": total, "seed": self.data_seed, "version": VERSION}
            folder = keep("listops", settings, lambda path: save(path, collect(grammar, total, self.data_seed)))
            everything = restore(folder)
        parts: dict[str, Expressions] = {}
        for name, size in sizes.items():
            parts[name], everything = everything.head(size), everything.tail(size)
        return parts

    def _published(self, data_dir: Path | None) -> dict[str, Expressions]:
        _, folder = find(PUBLISHED_SOURCES["listops"], data_dir)
        return {name: read_published(folder / LISTOPS_FILES[name], size) for name, size in self._sizes().items()}


def collect(grammar: Grammar, n: int, seed: int, workers: int | None = None) -> Expressions:
    """n different expressions. They are sorted, then shuffled, so that their order carries no trace of the drawing."""
    values: dict[bytes, int] = {}
    block = 0
    while len(values) < n:
        missing = n - len(values)
        blocks = range(block, block + -(-missing // BLOCK))
        for expressions in in_blocks(draw_block, (grammar, seed), blocks, workers):
            for tokens, value in expressions.each():
                if len(values) < n:
                    values.setdefault(tokens, value)
        block = blocks.stop
        if missing - (n - len(values)) < LEAST_NEW * min(missing, BLOCK):
            hint = "ask for fewer samples, or raise max_depth, max_args or max_length"
            raise ConfigError(f"the grammar gave only {len(values)} different expressions, {n} are needed", hint=hint)
    ordered = sorted(values)
    ordered = [ordered[i] for i in np.random.default_rng(seed).permutation(n)]
    return Expressions(
        tokens=np.frombuffer(b"".join(ordered), np.uint8),
        lengths=np.array([len(tokens) for tokens in ordered], np.int64),
        values=np.array([values[tokens] for tokens in ordered], np.uint8),
    )


def draw_block(settings: tuple[Grammar, int], block: int) -> Expressions:
    grammar, seed = settings
    return draw(grammar, BLOCK, np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,))))


def save(folder: Path, expressions: Expressions) -> None:
    """tokens.npy (total,) uint8, offsets.npy (n + 1,) int32 and values.npy (n,) uint8."""
    offsets = np.concatenate([[0], np.cumsum(expressions.lengths)])
    np.save(folder / "tokens.npy", expressions.tokens)
    np.save(folder / "offsets.npy", offsets.astype(np.int32 if offsets[-1] < 1 << 31 else np.int64))
    np.save(folder / "values.npy", expressions.values)


def restore(folder: Path) -> Expressions:
    tokens, offsets, values = (read_kept(folder, name) for name in ("tokens", "offsets", "values"))
    if len(offsets) != len(values) + 1 or offsets[-1] != len(tokens):
        raise ArtifactError(f"{folder} is damaged: its arrays do not fit together", hint="delete it")
    return Expressions(tokens=tokens, lengths=np.diff(offsets).astype(np.int64), values=values)


def make_split(expressions: Expressions, width: int) -> Split:
    """Cut expressions to width - 1 tokens, end them with <eos> and fill up with <pad>: inputs (n, width)."""
    inputs = np.full((len(expressions.values), width), PAD_ID, np.uint8)
    lengths = np.minimum(expressions.lengths, width - 1)
    starts = np.cumsum(expressions.lengths) - expressions.lengths
    for row, start, length in zip(inputs, starts, lengths, strict=True):
        row[:length] = expressions.tokens[start : start + length]
        row[length] = EOS_ID
    return Split(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(expressions.values.astype(np.int64)),
        lengths=torch.from_numpy(lengths + 1),
    )


def text(tokens: np.ndarray) -> str:
    """Token ids (length,) in words."""
    return " ".join(VOCABULARY[token] for token in tokens)
