"""Softmax attention of blocks of queries to chosen blocks of keys."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.scores.visibility import Visibility

Rule = Callable[[Tensor, Tensor], Tensor]  # positions of queries and keys -> is the key visible?


def in_blocks(
    q: Tensor, k: Tensor, v: Tensor, *, size: int, table: Tensor, rule: Rule | None = None, valid: Tensor | None = None
) -> Tensor:
    """(batch, head, length, d_head) -> the same.

    table (block, n) int64: the blocks of ``size`` keys that the queries of each block look at; numbers outside of the
    sequence stand for none. rule: which of these keys are visible, all by default. A query that sees nothing, as
    padding may, sees all of them.
    """
    length, blocks = q.shape[-2], len(table)
    there = (table >= 0) & (table < blocks)
    chosen = table.clamp(0, blocks - 1)
    queries, keys, values = (
        F.pad(t, (0, 0, 0, blocks * size - length)).unflatten(2, (blocks, size)) for t in (q, k, v)
    )
    keys, values = (
        t.index_select(2, chosen.flatten()).unflatten(2, chosen.shape).flatten(3, 4) for t in (keys, values)
    )
    step = torch.arange(size, device=q.device)
    key = (chosen[..., None] * size + step).flatten(1)  # (block, n * size)
    mask = (there.repeat_interleave(size, 1) & (key < length))[None, :, None]
    if rule is not None:
        query = torch.arange(blocks, device=q.device)[:, None, None] * size + step[:, None]
        mask = mask & rule(query, key[:, None])
    if valid is not None:
        mask = mask & F.pad(valid, (0, blocks * size - length))[:, key][:, :, None]
    mask = mask | ~mask.any(-1, keepdim=True)
    folded = (t.transpose(1, 2).flatten(0, 1) for t in (queries, keys, values))
    mask = mask.expand(len(q), -1, -1, -1).flatten(0, 1)[:, None]
    mixed = F.scaled_dot_product_attention(*folded, attn_mask=mask)
    return mixed.unflatten(0, (len(q), blocks)).transpose(1, 2).flatten(2, 3)[..., :length, :]


def dense(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """Of the first queries only: (batch, head, query, d_head), whose positions are 0, 1, ..."""
    mask = visibility.mask(slice(0, q.shape[-2]), slice(0, k.shape[-2]), q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
