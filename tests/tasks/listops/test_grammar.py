"""The generator against an evaluator that reads the written tokens, and against the grammar's exact length law."""

import statistics

import numpy as np
import pytest
from scipy.signal import fftconvolve
from scipy.stats import norm

from attnprobe.errors import ConfigError
from attnprobe.tasks.listops.grammar import (
    END_ID,
    FIRST_DIGIT,
    FIRST_OPERATOR,
    OPERATORS,
    P_OPERATOR,
    VOCABULARY,
    Expressions,
    Grammar,
    draw,
    grow,
)


def words(expressions: Expressions) -> list[tuple[list[str], int]]:
    return [([VOCABULARY[t] for t in tokens], value) for tokens, value in expressions.each()]


def evaluate(tokens: list[str]) -> int:
    """A machine with a stack of open lists; it shares nothing with the generator, which works level by level."""
    stack: list[list[int]] = [[]]
    kinds: list[str] = []
    for token in tokens:
        if token in OPERATORS:
            kinds.append(token)
            stack.append([])
            continue
        if token == "]":
            arguments = stack.pop()
            kind = kinds.pop()
            assert len(arguments) >= 2
            result = {
                "[MIN": min(arguments),
                "[MAX": max(arguments),
                "[MED": int(statistics.median(arguments)),
                "[SM": sum(arguments) % 10,
            }[kind]
        else:
            result = int(token)
        stack[-1].append(result)
    assert not kinds
    (value,) = stack.pop()
    return value


def depth(tokens: list[str]) -> int:
    return int(np.cumsum([1 if t in OPERATORS else -(t == "]") for t in tokens]).max())


@pytest.mark.parametrize(
    ("grammar", "n"),
    [(Grammar(min_length=10, max_length=100), 9_000), (Grammar(), 300), (Grammar(min_length=0, max_length=60), 1_000)],
)
def test_values_agree_with_an_independent_evaluator(grammar: Grammar, n: int) -> None:
    expressions = words(draw(grammar, n, np.random.default_rng(1)))
    assert len(expressions) == n
    for tokens, value in expressions:
        assert evaluate(tokens) == value
        assert grammar.min_length < len(tokens) < grammar.max_length
        assert depth(tokens) < grammar.max_depth


def test_medians_of_even_numbers_of_arguments_are_cut() -> None:
    assert evaluate(["[MED", "1", "4", "]"]) == 2
    assert evaluate(["[SM", "9", "9", "[MIN", "3", "4", "]", "]"]) == 1


def within(count: int, n: int, p: float, sigmas: float = 3.0) -> bool:
    return abs(count - n * p) <= sigmas * np.sqrt(n * p * (1 - p))


def test_unconditional_trees_follow_the_grammar() -> None:
    levels, lengths = grow(Grammar(max_length=1 << 30), 20_000, np.random.default_rng(0))
    assert len(levels) == 10
    assert not levels[-1].is_operator.any()
    nodes = np.concatenate([level.arguments for level in levels[:-1]])
    operators = nodes[nodes > 0]
    assert within(len(operators), len(nodes), P_OPERATOR)
    assert (operators.min(), operators.max()) == (2, 10)
    assert all(within(int((operators == k).sum()), len(operators), 1 / 9) for k in range(2, 11))
    total = sum(len(level.tree) for level in levels) + len(operators)
    assert lengths.sum() == total
    expected = 0.75 + 0.25 * 2  # tokens per node above the deepest level
    mean = sum(expected * 1.5**d for d in range(9)) + 1.5**9
    assert abs(lengths.mean() - mean) < 3 * lengths.std() / np.sqrt(len(lengths))


def test_kinds_of_operators_and_digits_do_not_depend_on_the_length() -> None:
    tokens = draw(Grammar(), 400, np.random.default_rng(2)).tokens
    operators = tokens[(tokens >= FIRST_OPERATOR) & (tokens < END_ID)] - FIRST_OPERATOR
    digits = tokens[tokens >= FIRST_DIGIT] - FIRST_DIGIT
    assert len(operators) == (tokens == END_ID).sum()
    assert len(operators) + len(digits) + (tokens == END_ID).sum() == len(tokens)
    assert all(within(int((operators == k).sum()), len(operators), 1 / 4) for k in range(4))
    assert all(within(int((digits == k).sum()), len(digits), 1 / 10) for k in range(10))


def exact_law(grammar: Grammar) -> tuple[np.ndarray, np.ndarray]:
    """P(length = l) for l < max_length, and the expected number of operators with k arguments in trees of length l.

    Generating functions, level by level from the deepest: [l], and [k, l] where each operator with k arguments is
    counted by differentiating with respect to a mark on it.
    """
    size, most = grammar.max_length, grammar.max_args

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return fftconvolve(a, b, axes=-1)[..., :size]

    digit = np.zeros(size)
    digit[1] = 1.0
    law, marked = digit, np.zeros((most + 1, size))
    for _ in range(grammar.max_depth - 1):
        power, powers_sum, marked_sum = law, np.zeros(size), np.zeros((most + 1, size))
        for k in range(2, most + 1):
            marked_sum += k * times(marked, power[None])
            power = times(power, law)
            powers_sum += power
            marked_sum[k] += power
        rate = P_OPERATOR / (most - 1)
        law = (1 - P_OPERATOR) * digit + rate * np.roll(powers_sum, 2) * (np.arange(size) >= 2)
        marked = rate * np.roll(marked_sum, 2, axis=1) * (np.arange(size) >= 2)
    return law, marked


def test_lengths_and_arguments_follow_the_exact_law_of_kept_expressions() -> None:
    grammar = Grammar()
    law, marked = exact_law(grammar)
    kept = np.arange(grammar.max_length) > grammar.min_length
    lengths = np.arange(grammar.max_length)[kept]
    p = law[kept] / law[kept].sum()
    mean, median = p @ lengths, lengths[np.searchsorted(p.cumsum(), 0.5)]
    assert mean == pytest.approx(1035, abs=0.5)  # the benchmark's law, as computed independently beforehand
    assert median == pytest.approx(954, abs=1)

    n = 4_000
    expressions = draw(grammar, n, np.random.default_rng(3))
    found = expressions.lengths
    deviation = np.sqrt(p @ (lengths - mean) ** 2)
    assert abs(found.mean() - mean) < 3 * deviation / np.sqrt(n)
    assert within(int((found <= median).sum()), n, p[lengths <= median].sum())
    assert within(int((found <= 1643).sum()), n, 0.9)

    expected = marked[2:, kept].sum(1) / law[kept].sum()  # operators with 2 .. 10 arguments per kept expression
    assert expected[-1] / expected[0] == pytest.approx(
        1.027, abs=0.001
    )  # longer lists are more frequent than in the unconditional grammar
    levels, all_lengths = grow(grammar, 60_000, np.random.default_rng(4))
    chosen = (all_lengths > grammar.min_length) & (all_lengths < grammar.max_length)
    for k, rate in zip(range(2, 11), expected, strict=True):
        counts = sum(np.bincount(level.tree[level.arguments == k], minlength=len(chosen)) for level in levels)[chosen]
        assert abs(counts.mean() - rate) < norm.isf(0.0005) * counts.std() / np.sqrt(len(counts))


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="no expression has a length"):
        draw(Grammar(max_depth=2, min_length=30, max_length=40), 5, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="max_length"):
        Grammar(min_length=10, max_length=11)
    with pytest.raises(ConfigError, match="max_args"):
        Grammar(max_args=1)
