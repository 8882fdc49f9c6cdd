"""Shorter sequences for small runs: neighbours are averaged, and means of integers are rounded back to their type."""

import numpy as np

from attnprobe.config import require


def shorten(values: np.ndarray, factor: int, axes: tuple[int, ...]) -> np.ndarray:
    """Mean of every ``factor`` neighbours along each of ``axes``; what is left over at an axis's end is dropped.

    Values of an integer type are rounded, halves to the even neighbour.
    """
    if factor == 1:
        return values
    blocks: list[int] = []
    within: list[int] = []  # the axes that are averaged away
    for axis, size in enumerate(values.shape):
        if axis in axes:
            values = values[(slice(None),) * axis + (slice(size // factor * factor),)]
            within.append(len(blocks) + 1)
            blocks += [size // factor, factor]
        else:
            blocks.append(size)
    means = values.reshape(blocks).mean(tuple(within), dtype=np.float64)
    return (means.round() if np.issubdtype(values.dtype, np.integer) else means).astype(values.dtype)


def require_side(side: int, full: int) -> None:
    """Images of ``full`` x ``full`` pixels can be averaged to ``side`` x ``side``."""
    divisors = [d for d in range(2, full + 1) if full % d == 0]
    require(side in divisors, "side", f"must be one of {', '.join(map(str, divisors))}, got {side}")


def require_downsample(downsample: int, length: int) -> None:
    """Signals of ``length`` samples can be averaged by the factor ``downsample``."""
    possible = 1 <= downsample <= length
    require(possible, "downsample", f"must lie between 1 and {length}, got {downsample}")
