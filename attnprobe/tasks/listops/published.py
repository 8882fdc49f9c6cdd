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
OPEN_ID, CLOSE_ID = len(VOCABULARY), len(VOCABULARY) + 1  # parentheses, which are left out after they were checked
IDS = {token: i for i, token in enumerate(VOCABULARY) if token not in SPECIAL} | {"(": OPEN_ID, ")": CLOSE_ID}
BLOCK = 1000  # expressions checked at once
MAX_DEPTH = 1000  # the published ones have at most 10
HINT = "see `attnprobe data verify listops`, then get the file again"


class Line(NamedTuple):
    number: int
    tokens: bytes  # ids, those of the parentheses included
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
        try:
            tokens = bytes(map(IDS.__getitem__, row[0].split()))
        except KeyError as error:
            raise wrong(path, number, f"has an unknown token {error}") from None
        if not tokens:
            raise wrong(path, number, "has no expression")
        yield Line(number, tokens, int(row[1]))


def checked(lines: list[Line], path: Path) -> Expressions:
    """The expressions of some lines without parentheses, after a look at their brackets and values."""
    raw = np.frombuffer(b"".join(line.tokens for line in lines), np.uint8)
    lengths = np.array([len(line.tokens) for line in lines])
    owner = np.repeat(np.arange(len(lines)), lengths)  # the line of each token
    nesting = np.cumsum((raw == OPEN_ID).astype(np.int64) - (raw == CLOSE_ID))
    unbalanced = nesting < 0
    unbalanced[np.cumsum(lengths) - 1] |= nesting[np.cumsum(lengths) - 1] != 0
    refuse_any(unbalanced, owner, lines, path, "has parentheses that do not match")

    kept = raw < OPEN_ID
    tokens, owner = raw[kept], owner[kept]
    lengths = np.bincount(owner, minlength=len(lines))
    if not lengths.all():
        raise wrong(path, lines[int(np.argmin(lengths))].number, "has no expression")
    ends = np.cumsum(lengths)
    depth = np.cumsum(is_operator(tokens).astype(np.int64) - (tokens == END_ID))
    last = np.zeros(len(tokens), bool)
    last[ends - 1] = True
    refuse_any((depth < 0) | ((depth == 0) != last), owner, lines, path, f"has brackets [ and {END} that do not match")
    refuse_any(depth > MAX_DEPTH, owner, lines, path, f"is nested deeper than {MAX_DEPTH}")

    values, empty = values_of(tokens, depth)
    refuse_any(empty, owner, lines, path, "has an operator without arguments")
    found, given = values[ends - lengths], np.array([line.value for line in lines])
    if (found != given).any():
        i = int(np.argmax(found != given))
        raise wrong(path, lines[i].number, f"gives the value {given[i]}, but its expression has the value {found[i]}")
    return Expressions(tokens=tokens, lengths=lengths, values=given.astype(np.uint8))


def values_of(tokens: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value of every digit and operator, and whether it is an operator without arguments; both (tokens,).

    depth: how many operators are open after each token (tokens,).
    """
    values = tokens.astype(np.int64) - FIRST_DIGIT
    empty = np.zeros(len(tokens), bool)
    operator, digit = is_operator(tokens), tokens >= FIRST_DIGIT
    for level in range(depth.max(), 0, -1):
        here = np.flatnonzero(operator & (depth == level))
        arguments = np.flatnonzero((digit & (depth == level)) | (operator & (depth == level + 1)))
        counts = np.bincount(np.searchsorted(here, arguments, side="right") - 1, minlength=len(here))
        empty[here] = counts == 0
        if empty[here].any():
            break
        first = np.cumsum(counts) - counts
        values[here] = evaluate(tokens[here].astype(np.int64) - FIRST_OPERATOR, values[arguments], counts, first)
    return values, empty


def is_operator(tokens: np.ndarray) -> np.ndarray:
    return (tokens >= FIRST_OPERATOR) & (tokens < END_ID)


def refuse_any(bad: np.ndarray, owner: np.ndarray, lines: list[Line], path: Path, what: str) -> None:
    """ArtifactError for the line of the first token marked in ``bad`` (tokens,)."""
    if bad.any():
        raise wrong(path, lines[owner[np.argmax(bad)]].number, what)


def wrong(path: Path, number: int, what: str) -> ArtifactError:
    return ArtifactError(f"{path}, line {number} {what}", hint=HINT)
