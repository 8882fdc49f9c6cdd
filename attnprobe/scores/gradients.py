"""Gradients along the attention scores from what an attention call shows, in blocks of query rows."""

import dataclasses

import torch
from torch import Tensor

from attnprobe.scores.call import AttentionCall

# Allowed row sum of a score gradient, as a share of the largest |dO_i| |v_j| in the row (what the terms that cancel
# are made of). float32 leaves room for tensor cores.
ROW_SUM_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientBlock:
    """d target / d scores for some queries of one layer, class token excluded."""

    layer: int
    rows: slice  # of the sequence's queries
    values: Tensor  # (target, batch, head, rows, length)


@torch.no_grad()
def streamed_gradient(call: AttentionCall, of_output: Tensor, queries: slice) -> Tensor:
    """dS = P o (dO V^T - rowsum(dO o O)) at some queries: (target, batch, head, query, d_head) -> (..., rows, key)."""
    dtype = torch.promote_types(call.q.dtype, torch.float32)
    v, output = call.values.to(dtype), call.output[..., queries, :].to(dtype)
    gradient = of_output[..., queries, :].to(dtype)
    return call.pattern_of(queries) * (gradient @ v.mT - (gradient * output).sum(-1, keepdim=True))
