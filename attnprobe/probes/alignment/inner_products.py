"""Inner products of every sequence's gradients with one mean gradient, along scores, offsets, W_Q and W_K.

With those of every logit at hand the inner product of a label gradient with a reconstruction gradient is known for any
labels, exactly and without keeping whole gradients of sequences. A gradient of W_Q is x^T dq, x what the layer sees and
dq the gradient of its queries, so its inner product with a change of W_Q is that of dq with how the queries move.
"""

import contextlib
import dataclasses
from typing import Self

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.score_gradients import Trace
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.gradients import GradientBlock
from attnprobe.scores.visible_sums import pair_counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanGradient:
    """One loss's, by place: (layer, head, ...) each, on the device of the scores."""

    parts: dict[str, Tensor]  # "offsets" (*offsets), "scores" (length, length), "W_Q" and "W_K" (d_head, d_model)

    @classmethod
    def of_groups(cls, means: dict[str, np.ndarray], sizes: np.ndarray, subject: Subject) -> Self:
        """From means over groups of so many sequences, as ``gather`` keeps them."""
        space, device = subject.space, subject.layers[0].device
        whole = {where: torch.from_numpy(np.average(x, axis=0, weights=sizes)).to(device) for where, x in means.items()}
        # Group means are scaled so that their inner products are those of matrices; what meets sums by offset is not.
        counts = pair_counts(space.layout)[0].to(device).clamp(min=1)
        shapes = {"offsets": space.layout.offsets, "scores": (space.length, space.length)}
        shapes |= {name: (layer.d_head, -1) for name in ("W_Q", "W_K") for layer in subject.layers[:1]}
        parts = {where: x.unflatten(-1, shapes[where]) for where, x in whole.items()}
        parts["offsets"] = parts["offsets"] / counts.sqrt()
        return cls(parts=parts)

    @property
    def places(self) -> list[str]:
        return list(self.parts)

    def of_block(self, block: GradientBlock, folded: Tensor, space: ScoreSpace) -> dict[str, Tensor]:
        """Share of these query rows in the inner products along offsets and scores, (target, batch, head) each."""
        axes = tuple(range(-len(space.layout.shape), 0))
        found = {"offsets": (folded * self.parts["offsets"][block.layer].to(folded)).sum(axes)}
        if "scores" in self.parts:
            here = self.parts["scores"][block.layer][:, block.rows].to(block.values)
            found["scores"] = torch.einsum("tbhqk,hqk->tbh", block.values, here)
        return found

    def of_weights(self, subject: Subject, traced: Trace) -> dict[str, Tensor]:
        """The inner products along W_Q and W_K, (batch, target, layer, head) each, if the subject shows these."""
        if "W_Q" not in self.parts:
            return {}
        found = {}
        for name, weights in zip(("W_Q", "W_K"), zip(*subject.projections(), strict=True), strict=True):
            outputs = [call.q if name == "W_Q" else call.k for call in traced.calls]
            changes = [part.flatten(0, 1).to(w) for part, w in zip(self.parts[name], weights, strict=True)]
            steps = [movement(o, w, c) for o, w, c in zip(outputs, weights, changes, strict=True)]
            columns = []
            for target in traced.loss.targets.unbind(1):
                pulls = torch.autograd.grad(target.sum(), outputs, retain_graph=True, materialize_grads=True)
                layers = [(p * step).sum((-2, -1)).double() for p, step in zip(pulls, steps, strict=True)]
                columns.append(torch.stack(layers, 1))
            found[name] = torch.stack(columns, 1)
        return found


def movement(output: Tensor, weights: Tensor, change: Tensor) -> Tensor:
    """How ``output`` moves per unit of a change of the ``weights`` it was made with: forward mode by two backward ones.

    What a backward pass returns is linear in what it is given, v; its own derivative along ``change`` is the answer.
    """
    v = torch.zeros_like(output, requires_grad=True)
    (pulled,) = torch.autograd.grad(output, weights, v, create_graph=True, materialize_grads=True)
    if not pulled.requires_grad:  # the output was not made with these weights
        return torch.zeros_like(output)
    return torch.autograd.grad(pulled, v, change, retain_graph=True)[0].detach()


def weight_gradients(subject: Subject, total: Tensor) -> dict[str, Tensor]:
    """Of the summed loss with respect to W_Q and W_K, (layer, head, d_head * d_model) each; none if not shown."""
    heads, found = subject.shape[1], {}
    with contextlib.suppress(NotApplicableError):
        for name, weights in zip(("W_Q", "W_K"), zip(*subject.projections(), strict=True), strict=True):
            gradients = torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True)
            found[name] = torch.stack([g.unflatten(0, (heads, -1)).flatten(1).double() for g in gradients])
    return found
