"""Ranks of the maps of claim C1 in exact rational arithmetic."""

from fractions import Fraction
from functools import cache

Matrix = list[list[Fraction]]


def rank(matrix: Matrix) -> int:
    """Rank by Gaussian elimination over the rationals: no rounding, no threshold."""
    rows = [row[:] for row in matrix]
    pivots = 0
    for column in range(len(rows[0])):
        found = next((i for i in range(pivots, len(rows)) if rows[i][column]), None)
        if found is None:
            continue
        rows[pivots], rows[found] = rows[found], rows[pivots]
        pivot = rows[pivots]
        for i in range(pivots + 1, len(rows)):
            if rows[i][column]:
                factor = rows[i][column] / pivot[column]
                rows[i] = [a - factor * b if b else a for a, b in zip(rows[i], pivot, strict=True)]
        pivots += 1
    return pivots


def centring_map(length: int) -> Matrix:
    """Delta -> Delta~ on flattened matrices, (L^2, L^2): entry (i, j) minus the mean of row i."""
    return [
        [Fraction(i == k) * (Fraction(j == m) - Fraction(1, length)) for k in range(length) for m in range(length)]
        for i in range(length)
        for j in range(length)
    ]


def column_sum_map(length: int) -> Matrix:
    """Delta -> column sums of Delta~, (L, L^2): the rows of the centring map added up over the queries."""
    centring = centring_map(length)
    return [[sum(terms, Fraction(0)) for terms in zip(*centring[j::length], strict=True)] for j in range(length)]


def row_sum_map(length: int) -> Matrix:
    """Delta -> row sums, (L, L^2)."""
    return [[Fraction(i == k) for k in range(length) for _ in range(length)] for i in range(length)]


@cache
def effective_dimension(length: int) -> int:
    """Dimension of {Delta~}."""
    return rank(centring_map(length))


@cache
def visible_dimension(length: int) -> int:
    """Dimension of what the column sums of Delta~ can be."""
    return rank(column_sum_map(length))


@cache
def blind_dimension(length: int) -> int:
    """Dimension of {Delta : rows sum to zero, columns of Delta~ sum to zero}: unknowns minus independent equations."""
    return length**2 - rank(row_sum_map(length) + column_sum_map(length))
