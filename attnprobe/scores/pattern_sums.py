"""What needs the softmax, tile by tile: the pattern's mass by offset and its entropy, exact in bounded memory.

A first pass over the keys collects the log-sum-exp of every query (online, tile by tile); a second one, in the
opposite order so that the last tile is still at hand, forms the weights and folds them along the diagonals. If a tile
spans all keys nothing is computed twice.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import centre
from attnprobe.scores.visibility import Visibility

Rows = slice  # image rows (or positions, where the layout is a sequence)


def pattern_moments(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    *,
    scale: float,
    valid: Tensor | None = None,
    tile: int = 2**20,
) -> tuple[Tensor, Tensor]:
    """Sums over the queries of the pattern by offset (batch, head, *layout.offsets) and of its entropy (batch, head).

    q, k: (batch, head, length, d_head); valid: (batch, length) bool, at least one True each; padded queries count for
    nothing. Entropy in nats. ``tile`` bounds the scores held at once, all heads and sequences of the batch together;
    one image row against one image row is the least.
    """
    height, width = layout.shape if len(layout.shape) == 2 else (layout.length, 1)
    visibility = Visibility(causal=layout.causal, valid=valid)
    q, k = centre(q, k, valid, causal=layout.causal)  # the softmax does not notice, the rounding does
    query_rows, key_rows = tile_rows(tile // (len(q) * q.shape[1] * width * width), height)
    mass = q.new_zeros(*q.shape[:2], 2 * height - 1, 2 * width - 1)
    entropy = q.new_zeros(q.shape[:2])
    for rows in _spans(height, query_rows):
        # Under causality later keys are never seen.
        spans = list(_spans(rows.stop if layout.causal else height, key_rows))
        lse = q.new_full((*q.shape[:2], (rows.stop - rows.start) * width), -math.inf)
        scores = q.new_empty(0)
        for keys in spans:
            scores = _scores(q, k, rows, keys, width, scale, visibility)
            lse = torch.logaddexp(lse, scores.logsumexp(-1))
        counted = _counted(valid, rows, width)
        for keys in reversed(spans):
            if keys is not spans[-1]:
                scores = _scores(q, k, rows, keys, width, scale, visibility)
            pattern = (scores - lse[..., None]).exp_()
            if counted is not None:
                pattern.masked_fill_(~counted[..., None], 0.0)
            # Hidden keys have score -inf and weight 0; their product must be 0.
            entropy -= (pattern * scores.clamp_(min=torch.finfo(scores.dtype).min)).sum((-2, -1))
            first = keys.start - (rows.stop - 1) + height - 1
            folded = fold_grid(pattern, width)
            mass[..., first : first + folded.shape[-2], :] += folded
        entropy += (lse if counted is None else lse.masked_fill(~counted, 0.0)).sum(-1)
    return mass.reshape(*q.shape[:2], *layout.offsets), entropy.clamp(min=0)


def tile_rows(rows_squared: int, height: int) -> tuple[int, int]:
    """Rows of queries and of keys in a tile: all keys if they fit, and few queries (folding pads by their number)."""
    key_rows = max(1, min(height, rows_squared))
    return max(1, min(height, rows_squared // key_rows, max(16, height // 8))), key_rows


def _spans(total: int, size: int) -> Iterator[Rows]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _positions(rows: Rows, width: int) -> slice:
    return slice(rows.start * width, rows.stop * width)


def _counted(valid: Tensor | None, rows: Rows, width: int) -> Tensor | None:
    """(batch, 1, query) bool: the queries that are no padding; None = all."""
    return None if valid is None else valid[:, None, _positions(rows, width)]


def _scores(q: Tensor, k: Tensor, rows: Rows, keys: Rows, width: int, scale: float, visibility: Visibility) -> Tensor:
    """One tile of scores (batch, head, query, key), -inf where a key is not visible."""
    queries, seen = _positions(rows, width), _positions(keys, width)
    scores = q[..., queries, :] @ k[..., seen, :].mT * scale
    visible = visibility.mask(queries, seen, q.device)
    return scores if visible is None else scores.masked_fill_(~visible, -math.inf)


def fold_grid(tile: Tensor, width: int) -> Tensor:
    """(..., query rows * width, key rows * width) -> (..., query rows + key rows - 1, 2 width - 1) by offset."""
    if width == 1:
        return fold(tile)[..., None]
    grid = tile.unflatten(-1, (-1, width)).unflatten(-3, (-1, width))  # (..., query y, query x, key y, key x)
    by_x = fold(grid.transpose(-3, -2))  # (..., query y, key y, offset x)
    return fold(by_x.movedim(-1, -3)).mT


def fold(matrix: Tensor) -> Tensor:
    """Sums along the diagonals: (..., rows, columns) -> (..., rows + columns - 1), from bottom left to top right.

    Entry t collects all (r, c) with c - r = t - (rows - 1). With the rows in reverse order, each padded by as many
    zeros as there are rows, and the flat buffer read again with rows shorter by one, every row has moved one place to
    the right of the one above it: the sum over rows is the answer, without scatter or atomics.
    """
    rows, columns = matrix.shape[-2:]
    flat = F.pad(matrix.flip(-2), (0, rows)).flatten(-2)
    return flat[..., : rows * (rows + columns - 1)].unflatten(-1, (rows, rows + columns - 1)).sum(-2)
