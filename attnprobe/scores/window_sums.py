"""What ``offset_sums`` and ``pattern_sums`` compute, where windows limit who sees whom: tile by tile, exact.

A tile holds the scores of some image rows (or positions) of queries with all keys they may see, so every query's row is
there at once. Time grows like length times window; sums have the arguments and results of their namesakes.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.scores.layout import Layout
from attnprobe.scores.pattern_sums import fold_grid

TILE = 2**20  # scores


class Tile(NamedTuple):
    queries: slice
    keys: slice
    visible: Tensor  # (batch or 1, 1, query, key) bool
    first: int  # where its folded sums begin on the first axis of offsets

    def mean(self, x: Tensor) -> Tensor:
        """Over the visible keys of each query: (..., query, key) -> (..., query, 1); 0 where there is none."""
        seen = self.visible.to(x.dtype)
        return (x * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)

    def scores(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        return q[..., self.queries, :] @ k[..., self.keys, :].mT * scale

    def centred(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Scores minus their mean over the visible keys; 0 where nobody looks."""
        scores = self.scores(q, k, scale)
        return (scores - self.mean(scores)) * self.visible


def tiles(layout: Layout, valid: Tensor | None, rows: int, size: int, device: torch.device) -> Iterator[Tile]:
    """rows: sequences times heads; size: the most scores of a tile, which has one image row of queries at least."""
    height, width = _grid(layout)
    assert layout.reach is not None, "windows"
    away = -(-layout.reach // width)  # image rows
    step = max(1, min(height, size // max(1, rows * width * width * (2 * away + 1))))
    rule = dataclasses.replace(layout.rule, valid=valid)
    for start in range(0, height, step):
        stop = min(start + step, height)
        low, high = max(0, start - away), stop if layout.causal else min(height, stop + away)
        queries, keys = slice(start * width, stop * width), slice(low * width, high * width)
        visible = rule.mask(queries, keys, device)
        assert visible is not None, "a window is a rule"
        visible = visible if visible.dim() == 4 else visible[None, None]
        if valid is not None:
            visible = visible & valid[:, None, queries, None]
        if not layout.self_pairs:
            query = torch.arange(queries.start, queries.stop, device=device)[:, None]
            visible = visible & (query != torch.arange(keys.start, keys.stop, device=device))
        yield Tile(queries, keys, visible, low - (stop - 1) + height - 1)


def score_moments(
    q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None, block_bytes: int = 2**23
) -> tuple[Tensor, None]:
    """Sums of the centred scores by offset; no squares."""
    sums = _by_offset(q.new_zeros(1), (*q.shape[:2],), layout)
    for tile in tiles(layout, valid, _rows(q), block_bytes // (4 * q.element_size()), q.device):
        _add(sums, tile, tile.centred(q, k, scale), layout)
    return sums.reshape(*q.shape[:2], *layout.offsets), None


def pattern_moments(
    q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None, tile: int = TILE
) -> tuple[Tensor, Tensor]:
    """Sums over the queries of the pattern by offset, and of its entropy."""
    mass, entropy = _by_offset(q.new_zeros(1), (*q.shape[:2],), layout), q.new_zeros(q.shape[:2])
    for part in tiles(layout, valid, _rows(q), tile // 4, q.device):
        hidden = ~part.visible
        scores = part.scores(q, k, scale).masked_fill(hidden, torch.finfo(q.dtype).min)
        logarithm = scores.log_softmax(-1)
        pattern = logarithm.exp().masked_fill(hidden, 0.0)
        entropy -= (pattern * logarithm.masked_fill(hidden, 0.0)).sum((-2, -1))
        _add(mass, part, pattern, layout)
    return mass.reshape(*q.shape[:2], *layout.offsets), entropy.clamp(min=0)


def pair_counts(layout: Layout, valid: Tensor | None = None) -> Tensor:
    """Visible pairs at each offset, float64."""
    one = torch.zeros(1, dtype=torch.float64, device=None if valid is None else valid.device)
    batch = 1 if valid is None else len(valid)
    counts = _by_offset(one, (batch, 1), layout)
    for tile in tiles(layout, valid, batch, TILE, one.device):
        _add(counts, tile, tile.visible.double(), layout)
    return counts[:, 0].reshape(batch, *layout.offsets)


def row_means(weights: Tensor, layout: Layout, valid: Tensor | None = None) -> Tensor:
    """Mean of weights[offset] over the visible keys of each query, float64 (batch or 1, length)."""
    device = weights.device if valid is None else valid.device
    found = [
        tile.mean(_weights_of(weights.double().to(device), tile, layout)).squeeze(-1).squeeze(1)
        for tile in tiles(layout, valid, 1 if valid is None else len(valid), TILE, device)
    ]
    return torch.cat(found, -1)


def square_sum(q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """Sum of the squared centred scores over all visible pairs: (batch, head)."""
    total = q.new_zeros(q.shape[:2])
    for tile in tiles(layout, valid, _rows(q), TILE, q.device):
        total += tile.centred(q, k, scale).square().sum((-2, -1))
    size = q.norm(dim=-1).square().sum(-1) * k.norm(dim=-1).square().sum(-1) * scale**2
    floor = size * (64 * torch.finfo(q.dtype).eps) ** 2  # equal scores, up to rounding
    return torch.where(total <= floor, torch.zeros_like(total), total)


def product_sum(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], layout: Layout, *, valid: Tensor | None = None
) -> Tensor:
    """Sum over visible pairs of the product of two sets of centred scores: (batch, head). first, second: q and k."""
    total = first[0].new_zeros(first[0].shape[:2])
    for tile in tiles(layout, valid, _rows(first[0]), TILE, first[0].device):
        total += (tile.centred(*first, 1.0) * tile.centred(*second, 1.0)).sum((-2, -1))
    return total


def contrast_keys(q: Tensor, weights: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """u with sum_j u_j . k_j = sum over visible pairs of weights[offset] * centred score, for keys in this order."""
    found = torch.zeros_like(q)
    for tile in tiles(layout, valid, _rows(q), TILE, q.device):
        own = _weights_of(weights.to(q), tile, layout)
        own = (own - tile.mean(own)) * tile.visible
        found[..., tile.keys, :] += own.mT @ q[..., tile.queries, :] * scale
    return found


def _grid(layout: Layout) -> tuple[int, int]:
    return (layout.shape[0], layout.shape[1]) if len(layout.shape) == 2 else (layout.length, 1)


def _rows(q: Tensor) -> int:
    return math.prod(q.shape[:2])


def _by_offset(like: Tensor, shape: tuple[int, ...], layout: Layout) -> Tensor:
    """Zeros (*shape, 2 height - 1, 2 width - 1)."""
    height, width = _grid(layout)
    return like.new_zeros(*shape, 2 * height - 1, 2 * width - 1)


def _add(sums: Tensor, tile: Tile, values: Tensor, layout: Layout) -> None:
    folded = fold_grid(values, _grid(layout)[1])
    sums[..., tile.first : tile.first + folded.shape[-2], :] += folded


def _weights_of(weights: Tensor, tile: Tile, layout: Layout) -> Tensor:
    """(query, key) of the weight at every pair's offset."""
    height, width = _grid(layout)
    query, key = (torch.arange(s.start, s.stop, device=weights.device) for s in (tile.queries, tile.keys))
    down = key // width - query[:, None] // width + height - 1
    along = key % width - query[:, None] % width + width - 1
    return weights.reshape(2 * height - 1, 2 * width - 1)[down, along]
