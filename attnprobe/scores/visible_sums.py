"""Sums over the visible pairs: by transforms where a query sees all, tile by tile where windows limit what it sees."""

from collections.abc import Callable

from torch import Tensor

from attnprobe.scores import offset_sums, pattern_sums, window_sums
from attnprobe.scores.layout import Layout


def score_sums(
    q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None, block_bytes: int = 2**23
) -> Tensor:
    """Sums of the centred scores by offset (batch, head, *layout.offsets): ``offset_sums.score_moments``."""
    sums = offset_sums if layout.reach is None else window_sums
    return sums.score_moments(q, k, layout, scale=scale, valid=valid, block_bytes=block_bytes)[0]


def pattern_moments(
    q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None, tile: int
) -> tuple[Tensor, Tensor]:
    """``pattern_sums.pattern_moments``."""
    sums = pattern_sums if layout.reach is None else window_sums
    return sums.pattern_moments(q, k, layout, scale=scale, valid=valid, tile=tile)


def pair_counts(layout: Layout, valid: Tensor | None = None) -> Tensor:
    """``offset_sums.pair_counts``."""
    return (offset_sums if layout.reach is None else window_sums).pair_counts(layout, valid)


def row_means(weights: Tensor, layout: Layout, valid: Tensor | None = None) -> Tensor:
    """``offset_sums.row_means``."""
    return (offset_sums if layout.reach is None else window_sums).row_means(weights, layout, valid)


def square_sum(q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """``offset_sums.square_sum``."""
    sums = offset_sums if layout.reach is None else window_sums
    return sums.square_sum(q, k, layout, scale=scale, valid=valid)


def products_with(
    q: Tensor, k: Tensor, layout: Layout, *, valid: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of other queries and keys: the sum over visible pairs of their centred scores times those of q and k,
    (batch, head).
    """
    if layout.reach is not None:
        return lambda q2, k2: window_sums.product_sum((q2, k2), (q, k), layout, valid=valid)
    rules = {"causal": layout.causal, "self_pairs": layout.self_pairs}
    whole = offset_sums.centre(q, k, valid, **rules)
    return lambda q2, k2: offset_sums.product_sum(offset_sums.centre(q2, k2, valid, **rules), whole, layout)


def occurring(layout: Layout) -> Tensor:
    """bool of shape ``layout.offsets``: whether any query sees a key at that offset."""
    return pair_counts(layout)[0] > 0


def contrast_keys(q: Tensor, weights: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """``offset_sums.contrast_keys``; within windows another order of the keys would not be a permutation of scores."""
    sums = offset_sums if layout.reach is None else window_sums
    return sums.contrast_keys(q, weights, layout, scale=scale, valid=valid)
