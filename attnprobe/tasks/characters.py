"""Texts as sequences of characters: the vocabulary of a training set, and ids padded to one length."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from attnprobe.tasks.data import MASK_ID

# Special ids in the order of Amos et al. 2023; ordinary characters follow, the most frequent first.
PAD_ID, UNKNOWN_ID, END_ID = 1, 2, 3
SPECIALS = 4
SPECIAL_SYMBOLS = ("<mask>", "<pad>", "<unk>", "<eos>")
assert MASK_ID == 0

CODE_POINTS = 0x110000
CHUNK = 1000  # texts counted at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which characters have an id of their own."""

    characters: str  # the character of id SPECIALS + i at position i

    def __len__(self) -> int:
        return SPECIALS + len(self.characters)

    def symbols(self) -> tuple[str, ...]:
        """What each id is called; half of a surrogate pair, which is no text, is called unknown."""
        readable = (c if not "\ud800" <= c <= "\udfff" else "<unk>" for c in self.characters)
        return (*SPECIAL_SYMBOLS, *readable)

    def table(self) -> np.ndarray:
        """(0x110000,) code point -> id, in the smallest type that holds all ids."""
        dtype = np.uint8 if len(self) <= 256 else np.int16 if len(self) <= 1 << 15 else np.int32
        ids = np.full(CODE_POINTS, UNKNOWN_ID, dtype)
        ids[code_points(self.characters)] = np.arange(SPECIALS, len(self))
        return ids

    def encode(self, texts: Iterable[str], count: int, max_length: int) -> "Encoded":
        """Cut every text to ``max_length`` - 1 characters, append the end sign, pad on the right.

        count: number of texts.
        """
        table = self.table()
        ids = np.full((count, max_length), PAD_ID, table.dtype)
        lengths = np.zeros(count, np.int64)
        truncated = 0
        for row, text in enumerate(texts):
            codes = table[code_points(text[: max_length - 1])]
            ids[row, : len(codes)] = codes
            ids[row, len(codes)] = END_ID
            lengths[row] = len(codes) + 1
            truncated += len(text) > max_length - 1
        return Encoded(ids=ids, lengths=lengths, truncated=truncated)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    ids: np.ndarray  # (n, max_length)
    lengths: np.ndarray  # (n,) int64, the end sign included
    truncated: int  # how many texts were cut

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.ids), torch.from_numpy(self.lengths)


def count_characters(texts: Iterable[str], max_length: int) -> np.ndarray:
    """(0x110000,) how often each code point occurs before the cut of ``Vocabulary.encode``."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for chunk in _chunks(texts):
        codes = code_points("".join(text[: max_length - 1] for text in chunk))
        counts += np.bincount(codes, minlength=CODE_POINTS)
    return counts


def make_vocabulary(counts: np.ndarray, minimum: int = 1) -> Vocabulary:
    """The characters that occur at least ``minimum`` times: by falling frequency, ties by code point."""
    known = np.flatnonzero(counts >= max(1, minimum))
    order = np.lexsort((known, -counts[known]))
    return Vocabulary(characters="".join(map(chr, known[order])))


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
