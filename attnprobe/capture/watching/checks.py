"""The self-test of what was watched: it must give what the model's own kernel gave, or nothing is measured."""

import dataclasses

import torch
from torch import Tensor

from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall

# Allowed difference of pattern times values from the kernel's output, as a share of the largest value, for scores up
# to USUAL; for larger ones their own rounding counts. In float64 it is that of eager kernels, whose softmax is float32.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
USUAL = 10.0
BLOCK = 2**22  # scores that are rebuilt at once


@torch.no_grad()
def rebuild(call: AttentionCall, *, rows: int | None = None) -> tuple[float, float]:
    """How far pattern times values lies from the output, as a share of the largest value, and what is allowed.

    Of the first sequence: all of its queries, or so many, evenly spaced.

    Raises NotApplicableError, naming the module, if scores or outputs are not finite, if the difference is larger than
    rounding explains, or if what was taken for scores has rows that sum to 1 like a pattern.
    """
    one, length, where = first_sequence(call), call.q.shape[2], call.name or "the model"
    heads, keys = one.q.shape[1], one.k.shape[2]
    if rows is None:
        step = max(1, BLOCK // (heads * keys))
        blocks = [slice(first, min(first + step, length)) for first in range(0, length, step)]
    else:
        places = torch.linspace(0, length - 1, min(rows, length)).long().tolist()
        blocks = [slice(place, place + 1) for place in places]
    largest = float(one.v.abs().max())
    error, allowed, sums_to_one = 0.0, TOLERANCE.get(call.v.dtype, 1e-6), True
    for block in blocks:
        scores, visible, output = one.scores_of(block), one.visible_to(block), one.output[..., block, :]
        pattern = one.pattern_of(block)
        apart = (pattern @ one.values.to(pattern.dtype) - output.to(pattern.dtype)).abs()
        shown = torch.ones_like(scores, dtype=torch.bool) if visible is None else visible.expand_as(scores)
        reading = shown.any(-1)  # what a query that sees nothing is given is the kernel's own affair
        real = one.visibility.valid
        if real is not None and real.shape[-1] == length:  # and what padding sees is none of the rules
            reading = reading & real[:1, None, block]
        seen = scores[shown & reading[..., None]]
        for what, values in (("scores", seen), ("outputs", output[reading])):  # fused kernels make 0 of scores of NaN
            if not bool(values.isfinite().all()):
                raise not_finite(f"{where}: its {what} hold")
        error = max(error, _largest(apart.amax(-1)[reading]) / max(largest, 1e-30))
        size = _largest(seen.abs())
        allowed = max(allowed, TOLERANCE.get(call.v.dtype, 1e-6) * size / USUAL)
        several = shown.sum(-1) > 1
        sums = torch.where(shown, scores, 0.0).sum(-1)[several]
        sums_to_one &= bool((sums - 1).abs().le(1e-3).all()) and bool((seen >= 0).all()) and bool(several.any())
    if sums_to_one:
        reason = f"{where}: what was taken for scores sums to 1 in every row, so it is a pattern already"
        raise NotApplicableError(reason, hint="scores are what the softmax is taken of")
    if not error <= allowed:
        reason = f"{where}: pattern times values differs from the output by {error:.1e} (allowed: {allowed:.1e})"
        hint = "its attention is another than softmax(scores) times values, so it is not measured"
        raise NotApplicableError(reason, hint=hint)
    return error, allowed


def not_finite(what: str) -> NotApplicableError:
    return NotApplicableError(f"{what} NaN or infinite values", hint="are all weights and inputs of the model finite?")


def _largest(x: Tensor) -> float:
    """0 of nothing; infinite where one is not a number."""
    return float(x.nan_to_num(nan=torch.inf).max()) if x.numel() else 0.0


def first_sequence(call: AttentionCall) -> AttentionCall:
    """The same call for the first of its sequences."""
    rules = call.visibility
    several = call.bias is not None and call.bias.dim() == 4
    dense = rules.dense if rules.dense is None or rules.dense.dim() < 4 else rules.dense[:1]
    one = dataclasses.replace(rules, valid=None if rules.valid is None else rules.valid[:1], dense=dense)
    parts = {name: getattr(call, name)[:1] for name in ("q", "k", "v", "output")}
    bias = call.bias[:1] if several and call.bias is not None else call.bias
    return dataclasses.replace(call, visibility=one, bias=bias, **parts)


def same_before(first: Tensor, second: Tensor, last: int) -> float:
    """Largest difference of two outputs (sequence, head, query, d) before query ``last``, as a share of the largest."""
    one, other = first[..., :last, :], second[..., :last, :]
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-30)) if last > 0 else 0.0
