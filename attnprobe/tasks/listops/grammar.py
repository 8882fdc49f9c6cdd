"""Random ListOps expressions with the grammar of the Long Range Arena (Tay et al. 2021, after Nangia & Bowman 2018).

A node above the deepest level is an operator with probability 1/4 and a digit otherwise; an operator takes 2 to
``max_args`` arguments. Expressions are kept if their number of tokens lies strictly between two bounds. Whole batches
of trees grow level by level, so an expression costs a few microseconds although eleven of twelve trees are refused.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError
from attnprobe.tasks.data import MASK_ID

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
END = "]"
SPECIAL = ("<mask>", "<pad>", "<unk>", "<eos>")  # <unk> is kept for the published numbering; nothing maps to it
VOCABULARY = (*SPECIAL, *OPERATORS, END, *map(str, range(10)))
PAD_ID, EOS_ID, FIRST_OPERATOR, END_ID, FIRST_DIGIT = map(VOCABULARY.index, ("<pad>", "<eos>", "[MIN", END, "0"))
assert VOCABULARY[MASK_ID] == "<mask>"

P_OPERATOR = 0.25
TREES = 4096  # grown at a time
HOPELESS = 1 << 20  # trees that may be refused in a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
    max_depth: int = 10  # levels of a tree, the root included; the deepest holds digits only
    max_args: int = 10  # arguments of an operator: uniform on 2 .. max_args
    min_length: int = 500  # tokens, exclusive
    max_length: int = 2000  # tokens, exclusive

    def __post_init__(self) -> None:
        require_positive(self, "max_depth", "max_length")
        require(self.max_args >= 2, "max_args", f"must be at least 2, got {self.max_args}")
        require(self.min_length >= 0, "min_length", f"must not be negative, got {self.min_length}")
        room = self.max_length - self.min_length
        require(
            room > 1, "max_length",
            f"must exceed min_length by 2 or more, got {self.max_length} and {self.min_length}",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """The nodes of one depth in many trees; the children of a node are neighbours in the next level, in order."""

    tree: np.ndarray  # (nodes,) which tree a node belongs to, ascending
    arguments: np.ndarray  # (nodes,) number of children; 0 = digit

    @property
    def is_operator(self) -> np.ndarray:
        return self.arguments > 0

    @property
    def first_child(self) -> np.ndarray:
        """(operators,) index of each operator's first child in the next level."""
        arguments = self.arguments[self.is_operator]
        return np.cumsum(arguments) - arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expressions:
    tokens: np.ndarray  # (total,) uint8 token ids of all expressions, one after the other
    lengths: np.ndarray  # (n,) int64 tokens per expression
    values: np.ndarray  # (n,) uint8 digits

    def head(self, n: int) -> "Expressions":
        end = self.lengths[:n].sum()
        return Expressions(tokens=self.tokens[:end], lengths=self.lengths[:n], values=self.values[:n])

    def tail(self, n: int) -> "Expressions":
        """All but the first n."""
        start = self.lengths[:n].sum()
        return Expressions(tokens=self.tokens[start:], lengths=self.lengths[n:], values=self.values[n:])

    def each(self) -> Iterator[tuple[bytes, int]]:
        """Tokens and value of one expression after the other."""
        content, end = self.tokens.tobytes(), np.cumsum(self.lengths)
        for start, stop, value in zip(end - self.lengths, end, self.values, strict=True):
            yield content[start:stop], int(value)


def draw(grammar: Grammar, n: int, generator: np.random.Generator) -> Expressions:
    """n independent expressions that obey the length bounds (duplicates are possible)."""
    parts: list[Expressions] = []
    found = refused = 0
    while found < n:
        levels, lengths = grow(grammar, TREES, generator)
        kept = (lengths > grammar.min_length) & (lengths < grammar.max_length)
        refused = 0 if kept.any() else refused + TREES
        if refused >= HOPELESS:
            bounds = f"between min_length {grammar.min_length} and max_length {grammar.max_length}"
            raise ConfigError(f"no expression has a length {bounds}", hint="raise max_depth, max_args or max_length")
        parts.append(write(select(levels, kept), generator))
        found += int(kept.sum())
    tokens, lengths, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("tokens", "lengths", "values")
    )
    return Expressions(tokens=tokens, lengths=lengths, values=values).head(n)


def grow(grammar: Grammar, n: int, generator: np.random.Generator) -> tuple[list[Level], np.ndarray]:
    """n trees and their numbers of tokens (n,). Trees that reached ``max_length`` are cut short: refuse them."""
    levels: list[Level] = []
    lengths = np.zeros(n, np.int64)
    tree = np.arange(n, dtype=np.int32)
    for depth in range(1, grammar.max_depth + 1):
        arguments = np.zeros(len(tree), np.int32)
        if depth < grammar.max_depth:
            operator = np.flatnonzero(generator.random(len(tree), np.float32) < P_OPERATOR)
            arguments[operator] = generator.integers(2, grammar.max_args + 1, len(operator), np.int32)
            lengths += np.bincount(tree[operator], minlength=n)  # an operator has a closing bracket
        lengths += np.bincount(tree, minlength=n)
        arguments[lengths[tree] >= grammar.max_length] = 0
        levels.append(Level(tree=tree, arguments=arguments))
        tree = np.repeat(tree, arguments)
    return levels, lengths


def select(levels: list[Level], kept: np.ndarray) -> list[Level]:
    """The trees marked in kept (trees,), numbered anew."""
    number = np.cumsum(kept, dtype=np.int32) - 1
    chosen = [kept[level.tree] for level in levels]
    return [
        Level(tree=number[level.tree[c]], arguments=level.arguments[c]) for level, c in zip(levels, chosen, strict=True)
    ]


def write(levels: list[Level], generator: np.random.Generator) -> Expressions:
    """Fill in operators and digits and write every tree as tokens, with its value.

    Going up, each node learns its value and its number of tokens; going down, where its tokens start.
    """
    ids: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    values = length = np.zeros(0, np.int64)
    for level in reversed(levels):
        operator, first = level.is_operator, level.first_child
        own = generator.integers(0, 10, len(level.tree))
        own[operator] = generator.integers(0, len(OPERATORS), len(first))
        ids.append(own + np.where(operator, FIRST_OPERATOR, FIRST_DIGIT))
        own_length = np.ones(len(own), np.int64)
        if len(first):
            own_length[operator] = 2 + np.add.reduceat(length, first)
            own[operator] = evaluate(own[operator], values, level.arguments[operator], first)
        values, length = own, own_length
        lengths.append(length)
    ids.reverse()
    lengths.reverse()
    return Expressions(tokens=_linearise(levels, ids, lengths), lengths=lengths[0], values=values.astype(np.uint8))


def evaluate(kind: np.ndarray, values: np.ndarray, arguments: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Apply operators (n,) to their arguments: ``arguments`` (n,) neighbours in ``values`` from ``first`` (n,) on.

    The median of an even number of arguments is the mean of the middle two, rounded down.
    """
    group = np.repeat(np.arange(len(kind)), arguments)
    ordered = np.sort(group * 10 + values) % 10
    low, high = ordered[first + (arguments - 1) // 2], ordered[first + arguments // 2]
    results = (ordered[first], ordered[first + arguments - 1], (low + high) // 2, np.add.reduceat(values, first) % 10)
    return np.choose(kind, results)


def _linearise(levels: list[Level], ids: list[np.ndarray], lengths: list[np.ndarray]) -> np.ndarray:
    """Tokens of all trees, one after the other: operator, arguments, closing bracket."""
    tokens = np.empty(lengths[0].sum(), np.uint8)
    start = np.cumsum(lengths[0]) - lengths[0]
    for depth, level in enumerate(levels):
        tokens[start] = ids[depth]
        operator = level.is_operator
        tokens[(start + lengths[depth] - 1)[operator]] = END_ID
        if not operator.any():
            break
        before = np.cumsum(lengths[depth + 1]) - lengths[depth + 1]
        shift = start[operator] + 1 - before[level.first_child]
        start = before + np.repeat(shift, level.arguments[operator])
    return tokens
