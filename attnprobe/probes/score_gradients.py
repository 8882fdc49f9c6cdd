"""Per-sequence gradients along the attention scores, in blocks of query rows.

Two ways to the same numbers. "dense" adds a zero score offset of shape (batch, head, query, key) and differentiates
with respect to it. "streamed" differentiates with respect to each attention output O only and uses
dS = P o (dO V^T - rowsum(dO o O)), block by block, so nothing of size length x length is kept (the identity behind the
backward pass of FlashAttention, Dao et al. 2022).
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.capture.subject import Loss, Subject
from attnprobe.errors import NotApplicableError, RunError
from attnprobe.probes.sequences import check_call, seen
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.gradients import ROW_SUM_TOLERANCE, GradientBlock, streamed_gradient

Method = Literal["dense", "streamed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """One forward pass whose graph is kept, ready to be differentiated along the scores."""

    space: ScoreSpace
    loss: Loss  # with gradient
    calls: list[AttentionCall]  # by layer
    offsets: list[Tensor] | None  # the zero score offsets of the dense method, by layer
    valid: Tensor | None  # (batch, length) bool: queries and keys that take part; None = all

    def gradients(self, rows: int) -> Iterator[GradientBlock]:
        """Gradients of every target, layer by layer, about ``rows`` queries at a time; keeps the graph.

        Raises RunError naming the layer if a row does not sum to zero or a hidden entry is not zero.
        """
        by_target = [self._backward(column) for column in self.loss.targets.unbind(1)]
        for layer, call in enumerate(self.calls):
            of_output = torch.stack([outputs[layer] for outputs, _ in by_target])
            of_offset = None if self.offsets is None else torch.stack([offsets[layer] for _, offsets in by_target])
            for block in self.space.row_blocks(rows):
                queries = slice(block.start + self.space.leading, block.stop + self.space.leading)
                if of_offset is None:
                    values = streamed_gradient(call, of_output, queries)
                else:
                    values = of_offset[..., queries, :]
                self._check(call, values, of_output, queries)
                yield GradientBlock(layer=layer, rows=block, values=values[..., self.space.leading :])

    def _backward(self, target: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Gradients of the summed target with respect to all outputs and all score offsets."""
        outputs = [call.output for call in self.calls]
        inputs = outputs + (self.offsets or [])
        gradients = torch.autograd.grad(target.sum(), inputs, retain_graph=True, materialize_grads=True)
        return gradients[: len(outputs)], gradients[len(outputs) :]

    @torch.no_grad()
    def _check(self, call: AttentionCall, values: Tensor, of_output: Tensor, queries: slice) -> None:
        scale = of_output[..., queries, :].norm(dim=-1) * call.values.norm(dim=-1).amax(-1, keepdim=True)
        tolerance = ROW_SUM_TOLERANCE[call.output.dtype]
        worst = float((values.sum(-1).abs() - tolerance * scale).amax())
        if not worst <= 0:  # also catches NaN
            raise RunError(
                f"layer {call.layer}: the rows of the score gradient do not sum to zero",
                hint="the attention output is not softmax(scores) times the values that were observed",
            )
        visible = call.visible_to(queries)
        hidden = torch.zeros((), dtype=torch.bool, device=values.device) if visible is None else ~visible
        if self.valid is not None:  # nothing reads a padded query
            padded = F.pad(~self.valid, (self.space.leading, 0))
            hidden = hidden | padded[:, None, queries, None]
        if bool((values * hidden).count_nonzero()):
            raise RunError(
                f"layer {call.layer}: the score gradient is not zero at hidden keys or padded queries",
                hint="this is a bug, please report it with the settings of the run",
            )


def trace(subject: Subject, samples: np.ndarray, loss: str, *, method: Method) -> Trace:
    """Run ``loss`` with gradients and keep what ``Trace.gradients`` needs; parameters may be frozen.

    Raises NotApplicableError naming layer and head if a query, key, value or output is not finite, and under sinks.
    """
    space, offsets = subject.space, None
    calls: list[AttentionCall] = []
    if method == "dense":
        sequences = len(samples) * subject.per_sample
        offsets = [
            torch.zeros(
                sequences, layer.heads, space.size, space.size,
                dtype=layer.dtype, device=layer.device, requires_grad=True,
            )
            for layer in subject.layers
        ]  # fmt: skip
    # A fused CPU kernel refuses a mask that needs a gradient; torch then falls back to the plain one, but says so
    # nowhere. Naming the plain one keeps that from depending on the version.
    pinned = sdpa_kernel(SDPBackend.MATH) if method == "dense" else contextlib.nullcontext()
    by_layer = None if offsets is None else dict(enumerate(offsets))
    with torch.enable_grad(), subject.differentiable(), pinned:
        found = subject.loss(loss, samples, score_offsets=by_layer, observe=calls.append)
    if not calls:
        raise NotApplicableError(
            "no attention layer took part in this forward pass, so there are no scores",
            hint="choose a model whose forward pass goes through its attention layers",
        )
    for call in calls:
        check_call(subject, call)
        if call.sinks is not None:
            reason = f"layer {call.layer} has sinks, so a constant added to all scores of a query changes its pattern"
            raise NotApplicableError(reason, hint="gradients of scores are taken where it does not; try proximity")
    return Trace(space=space, loss=found, calls=calls, offsets=offsets, valid=seen(subject, calls[0]))
