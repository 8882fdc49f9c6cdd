"""The ListOps files of the Long Range Arena: on every line a fully parenthesised expression, a tab, and its value.

Every expression is evaluated while it is read, so that a damaged line cannot pass for another one.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attnprobe.errors import ArtifactError
from attnprobe.tasks.listops.grammar import (
    END,
    END_ID,
    FIRST_DIGIT,
    FIRST_OPERATOR,
    SPECIAL,
    VOCABULARY,
    Expressions,
    evaluate,
)
from attnprobe.tasks.sources.copies import read_rows

HEADINGS = ["Source", "Target"]
IDS = {token.encode(): i for i, token in enumerate(VOCABULARY) if token not in SPECIAL}
WITHOUT_PARENTHESES = bytes.maketrans(b"()", b"  ")
NESTING = np.zeros(256, np.int8)  # by how much a byte of text changes the number of open parentheses
NESTING[[ord("("), ord(")")]] = 1, -1
DEPTH = np.zeros(len(VOCABULARY), np.int8)  # by how much a token changes the number of open operators
DEPTH[FIRST_OPERATOR:END_ID], DEPTH[END_ID] = 1, -1
BLOCK = 1000  # expressions checked at once
MAX_DEPTH = 1000  # the published ones have at most 10
HINT = "see `attnprobe data verify listops`, then get the file again"


class Line(NamedTuple):
    number: int
    text: bytes
    tokens: bytes  # ids; parentheses have none
    value: int


def read_published(path: Path, limit: int) -> Expressions:
    """At most ``limit`` expressions of one file; ArtifactError for a line that is not right."""
    lines = itertools.islice(read_lines(path), limit)
    parts: list[Expressions] = []
    while block := list(itertools.islice(lines, BLOCK)):
        parts.append(checked(block, path))
    if not parts:
        raise ArtifactError(f"{path} holds no expressions", hint=HINT)
    tokens, lengths, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("tokens", "lengths", "values")
    )
    return Expressions(tokens=tokens, lengths=lengths, values=values)


def read_lines(path: Path) -> Iterator[Line]:
    for number, row in enumerate(read_rows(path), 1):
        if number == 1 and row == HEADINGS:
            continue
        if len(row) != 2 or len(row[1]) != 1 or row[1] not in VOCABULARY[FIRST_DIGIT:]:
            raise wrong(path, number, "is not an expression, a tab and a digit")
        text = row[0].encode()
        try:
            tokens = bytes(map(IDS.__getitem__, text.translate(WITHOUT_PARENTHESES).split()))
        except KeyError as error:
            token = error.args[0].decode()
            raise wrong(path, number, f"has an unknown token {token!r}") from None
        if not tokens:
            raise wrong(path, number, "has no expression")
        yield Line(number, text, tokens, int(row[1]))


def checked(lines: list[Line], path: Path) -> Expressions:
    """The expressions of some lines, after a look at their brackets and values."""
    text, ends = joined([line.text for line in lines])
    nesting = np.cumsum(NESTING[text], dtype=np.int32)
    refuse_any(nesting < 0, ends, lines, path, "has parentheses that do not match")
    refuse_any(nesting[ends - 1] != 0, np.arange(len(lines)) + 1, lines, path, "has parentheses that do not match")

    tokens, ends = joined([line.tokens for line in lines])
    depth = np.cumsum(DEPTH[tokens], dtype=np.int32)
    last = np.zeros(len(tokens), bool)
    last[ends - 1] = True
    refuse_any((depth < 0) | ((depth == 0) != last), ends, lines, path, f"has brackets [ and {END} that do not match")
    refuse_any(depth > MAX_DEPTH, ends, lines, path, f"is nested deeper than {MAX_DEPTH}")

    values, empty = values_of(tokens, depth.astype(np.int16))
    refuse_any(empty, ends, lines, path, "has an operator without arguments")
    lengths = np.diff(ends, prepend=0)
    found, given = values[ends - lengths], np.array([line.value for line in lines])
    if (found != given).any():
        i = int(np.argmax(found != given))
        raise wrong(path, lines[i].number, f"gives the value {given[i]}, but its expression has the value {found[i]}")
    return Expressions(tokens=tokens, lengths=lengths, values=given.astype(np.uint8))


def joined(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All bytes one after the other, and where each part ends."""
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([len(part) for part in parts])


def values_of(tokens: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value of every digit and operator, and whether it is an operator without arguments; both (tokens,).

    depth: how many operators are open after each token (tokens,) int16.
    """
    values = tokens.astype(np.int64) - FIRST_DIGIT
    empty = np.zeros(len(tokens), bool)
    operator = is_operator(tokens)
    operators, first_operator = by_level(np.flatnonzero(operator), depth)
    arguments, first_argument = by_level(np.flatnonzero(tokens != END_ID), depth - operator)
    for level in range(depth.max(), 0, -1):
        here = operators[first_operator[level] : first_operator[level + 1]]
        inner = arguments[first_argument[level] : first_argument[level + 1]]
        counts = np.bincount(np.searchsorted(here, inner, side="right") - 1, minlength=len(here))
        if not counts.all():
            empty[here] = counts == 0
            break
        first = np.cumsum(counts) - counts
        values[here] = evaluate(tokens[here].astype(np.int64) - FIRST_OPERATOR, values[inner], counts, first)
    return values, empty


def by_level(index: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``index`` into ``level`` (tokens,), sorted by it, and where each level's part begins and the last one ends."""
    found = level[index]
    starts = np.concatenate([[0], np.cumsum(np.bincount(found, minlength=level.max() + 2))])
    return index[np.argsort(found, kind="stable")], starts


def is_operator(tokens: np.ndarray) -> np.ndarray:
    return (tokens >= FIRST_OPERATOR) & (tokens < END_ID)


def refuse_any(bad: np.ndarray, ends: np.ndarray, lines: list[Line], path: Path, what: str) -> None:
    """ArtifactError for the line of the first place marked in ``bad``; ends: where each line ends there."""
    if bad.any():
        raise wrong(path, lines[np.searchsorted(ends, np.argmax(bad), side="right")].number, what)


def wrong(path: Path, number: int, what: str) -> ArtifactError:
    return ArtifactError(f"{path}, line {number} {what}", hint=HINT)
