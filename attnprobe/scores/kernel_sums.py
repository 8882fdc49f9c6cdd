"""Where the weight of long kernels lies, as for patterns of attention: near its query, how far away, how spread."""

from typing import NamedTuple

import numpy as np

from attnprobe.scores.layout import Layout


class KernelSums(NamedTuple):
    """Of every kernel (kernel,), float64; NaN where a query sees no weight."""

    near_mass: np.ndarray  # weight on near keys / what equal weights would put there, over all queries
    distance: np.ndarray  # mean distance of the weight, over all queries
    entropy: np.ndarray  # mean entropy of the weights that a query gives, nats


@np.errstate(divide="ignore", invalid="ignore")  # a query may see no weight at all
def kernel_sums(weights: np.ndarray, layout: Layout, radius: float) -> KernelSums:
    """weights (kernel, 2 length - 1) >= 0, by offset key - query from 1 - length on.

    The keys that a query sees are cut from the kernel by the ends of the sequence, and its weights scaled to sum to 1;
    near is what lies at most ``radius`` away. O(length) for a line, O(length * width) for a grid: sums over windows of
    the kernel are differences of sums from its start.
    """
    length, width = layout.length, 1 if len(layout.shape) == 1 else layout.shape[1]
    offset = np.arange(1 - length, length)
    weights = weights.astype(np.float64) * (offset <= 0 if layout.causal else np.ones_like(offset))
    equal = (offset <= 0).astype(float) if layout.causal else np.ones(len(offset))
    logarithms = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    totals, spreads, equals = (_from_start(x) for x in (weights, weights * logarithms, equal))
    near, uniform, distance, entropy = (np.zeros(len(weights)) for _ in range(4))
    for column in range(width):
        away = _distance(offset, column, width, line=len(layout.shape) == 1)
        query = np.arange(column, length, width)
        first, last = length - 1 - query, 2 * length - 1 - query
        total = _window(totals, first, last)
        near += np.divide(_window(_from_start(weights * (away <= radius)), first, last), total).sum(-1)
        distance += np.divide(_window(_from_start(weights * away), first, last), total).sum(-1)
        entropy += (np.log(total) - _window(spreads, first, last) / total).sum(-1)
        uniform += (_window(_from_start(equal * (away <= radius)), first, last) / _window(equals, first, last)).sum()
    return KernelSums(near / uniform, distance / length, entropy / length)


def _distance(offset: np.ndarray, column: int, width: int, *, line: bool) -> np.ndarray:
    """From a query in this column to the key so many positions on, row by row."""
    if line:
        return np.abs(offset).astype(float)
    return np.hypot((column + offset) // width, (column + offset) % width - column)


def _from_start(x: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2, ... entries."""
    return np.concatenate([np.zeros((*x.shape[:-1], 1)), np.cumsum(x, -1)], -1)


def _window(sums: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    return sums[..., last] - sums[..., first]
