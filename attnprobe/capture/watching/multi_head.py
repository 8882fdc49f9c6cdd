"""``nn.MultiheadAttention``: the functions that its one function uses, replaced while that runs."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from attnprobe.capture.watching.functions import Functions

WAY = "functions"


@contextlib.contextmanager
def inside_multi_head(functions: "Functions", batch: int) -> Iterator[None]:
    """While open, ``multi_head_attention_forward`` reports to the collector of ``functions``.

    Without weights it calls the fused kernel; with weights a product of queries and keys, a softmax, and a product
    with the values, over one axis of all heads of all sequences.
    """
    fused, softmax, bmm, baddbmm = F.scaled_dot_product_attention, F.softmax, torch.bmm, torch.baddbmm
    steps: dict[str, Any] = {}

    def watched_bmm(left: Tensor, right: Tensor, **more: Any) -> Tensor:
        result = bmm(left, right, **more)
        if steps.get("pattern") is left:
            return _finish(functions, steps, right, result, batch)
        steps.update(q=left, k=right.mT, mask=None)
        return result

    def watched_baddbmm(mask: Tensor, left: Tensor, right: Tensor, **more: Any) -> Tensor:
        steps.update(q=left, k=right.mT, mask=mask)
        return baddbmm(mask, left, right, **more)

    def watched_softmax(scores: Tensor, *args: Any, **more: Any) -> Tensor:
        place = functions.collector.begin(functions.running[-1] if functions.running else "")
        offset = None if place is None else functions.collector.offset(place)
        if offset is not None:
            shape = (batch, len(scores) // batch, *scores.shape[1:])
            scores = scores + offset.to(scores.dtype).expand(shape).flatten(0, 1)
        pattern = softmax(scores, *args, **more)
        steps.update(pattern=None if place is None else pattern, place=place)
        return pattern

    def watched_fused(*args: Any, **more: Any) -> Tensor:
        return functions.fused(fused, *args, **more)

    F.scaled_dot_product_attention, F.softmax = watched_fused, watched_softmax
    torch.bmm, torch.baddbmm = watched_bmm, watched_baddbmm
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.softmax = fused, softmax
        torch.bmm, torch.baddbmm = bmm, baddbmm


def _finish(functions: "Functions", steps: dict[str, Any], values: Tensor, output: Tensor, batch: int) -> Tensor:
    """The softmax met its values."""
    q, k, v, seen = (x.unflatten(0, (batch, -1)) for x in (steps["q"], steps["k"], values, output))
    mask = steps["mask"]
    if mask is not None:  # (sequences x heads or 1, query, key)
        mask = mask[None] if len(mask) == 1 else mask.unflatten(0, (batch, -1))
    functions.collector.end(
        steps["place"], WAY, q=q, k=k, v=v, output=seen, mask=mask, causal=False, scale=1.0
    )  # the queries were scaled before
    return seen.flatten(0, 1) if torch.is_grad_enabled() else output
