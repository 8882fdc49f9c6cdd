"""One pass over the data for one loss: everything about its score gradients that the alignment probe needs.

What is kept per sequence is small: projections, energies and the values that were differentiated. Whole gradients are
kept as means over groups of sequences, because cosines that are free of noise only need different groups. Of the label
loss these are of the part that depends on the labels: the rest says nothing of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.probes.alignment.inner_products import MeanGradient, weight_gradients
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.score_gradients import trace
from attnprobe.probes.sequences import Progress
from attnprobe.scores.directions import Projector
from attnprobe.scores.visible_sums import pair_counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """Sequences in the order of the groups; all arrays on the CPU."""

    targets: np.ndarray  # (n, target)
    projections: np.ndarray  # (n, target, layer, head, direction) of every target's gradient
    projection: np.ndarray  # (n, layer, head, direction) of the loss's gradient
    energy: np.ndarray  # (n, layer, head) squared norm of the loss's score gradient
    offset_energy: np.ndarray  # (n, layer, head) of its part that depends on the offset only, over its real pairs
    profile: np.ndarray  # (layer, head, *offsets) mean of the gradient's sums by offset
    profile_error: np.ndarray  # (layer, head, *offsets) standard error of that mean
    group_means: dict[str, np.ndarray]  # (group, layer, head, ...): "offsets", "W_Q", "W_K" and perhaps "scores"
    inner: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # place -> (n, target, layer, head)
    valid: np.ndarray | None = None  # (n, length) bool, False at padding; None: there is none

    def profile_t(self) -> np.ndarray:
        """t of the gradient's sum at every offset (layer, head, *offsets); NaN at offsets that are never seen."""
        error = self.profile_error
        return np.divide(self.profile, error, out=np.full_like(error, np.nan), where=error > 0)


def gather(
    subject: Subject,
    groups: Sequence[np.ndarray],
    loss: str,
    projector: Projector,
    plan: Plan,
    progress: Progress | None = None,
    *,
    other: MeanGradient | None = None,
) -> Gathered:
    """Differentiate ``loss`` along the scores for the samples in ``groups``.

    other: the other loss's mean gradient, of which inner products with every target's gradients are wanted.
    """
    total, done = sum(map(len, groups)), 0
    layout = projector.space.layout
    kept = np.float64 if subject.layers[0].dtype == torch.float64 else np.float32
    profile = np.zeros((2, *subject.shape, *layout.offsets))  # sum and sum of squares
    parts: list[_Part] = []
    group_means: dict[str, np.ndarray] = {}
    for number, group in enumerate(groups):
        sums: dict[str, Tensor] = {}
        for first in range(0, len(group), plan.batch):
            samples = group[first : first + plan.batch]
            part = _differentiate(subject, samples, loss, projector, plan, sums, group=group, other=other)
            parts.append(part)
            profile += sums.pop("profile").cpu().numpy()
            done += len(samples)
            if progress is not None:
                progress(done, total)
        for name, value in sums.items():
            if name not in group_means:
                group_means[name] = np.empty((len(groups), *value.shape), kept)
            group_means[name][number] = value.div_(len(group)).cpu().numpy()
    fields = ("targets", "projections", "coefficients", "energy", "offset_energy")
    targets, projections, coefficients, energy, offset_energy = (
        torch.cat([getattr(part, name) for part in parts]).cpu().numpy() for name in fields
    )
    mean = profile[0] / total
    variance = (profile[1] / total - mean**2).clip(min=0)
    return Gathered(
        targets=targets,
        projections=projections,
        projection=np.einsum("ntlhd,nt->nlhd", projections, coefficients),
        energy=energy,
        offset_energy=offset_energy,
        profile=mean,
        profile_error=np.sqrt(variance / max(total - 1, 1)),
        group_means=group_means,
        inner={place: torch.cat([part.inner[place] for part in parts]).cpu().numpy() for place in parts[0].inner},
        valid=_joined(parts, projector.space.length),
    )


def _joined(parts: "Sequence[_Part]", length: int) -> np.ndarray | None:
    """Masks of all batches (n, length); None if nothing is padded. A batch without padding need not have one."""
    if all(part.valid is None or bool(part.valid.all()) for part in parts):
        return None
    whole = [torch.ones(len(part.targets), length, dtype=torch.bool) for part in parts]
    masks = [one if part.valid is None else part.valid.cpu() for one, part in zip(whole, parts, strict=True)]
    return torch.cat(masks).numpy()


@dataclasses.dataclass(frozen=True)
class _Part:
    """One batch, float64 on the device of the scores."""

    targets: Tensor  # (batch, target)
    projections: Tensor  # (batch, target, layer, head, direction)
    coefficients: Tensor  # (batch, target) d loss / d target
    energy: Tensor  # (batch, layer, head)
    offset_energy: Tensor  # (batch, layer, head)
    inner: dict[str, Tensor]  # (batch, target, layer, head)
    valid: Tensor | None  # (batch, length) bool; None: all


def _differentiate(
    subject: Subject,
    samples: np.ndarray,
    loss: str,
    projector: Projector,
    plan: Plan,
    sums: dict[str, Tensor],
    *,
    group: np.ndarray,
    other: MeanGradient | None,
) -> _Part:
    """Per-sequence statistics of a batch of ``group``; gradients summed over it are added to ``sums`` by name.

    Those of W_Q and W_K only if there is more than one group: without cosines nobody needs them.
    """
    space, (layers, heads) = projector.space, subject.shape
    traced = trace(subject, samples, loss, method=plan.method)
    fitted = projector.fitted(traced.valid)
    targets = traced.loss.targets.detach().requires_grad_()
    (coefficients,) = torch.autograd.grad(traced.loss.of(targets).sum(), targets)
    wanted = kept_part(subject, samples, group, targets) if loss == "label" else coefficients
    if plan.groups > 1:
        _add(sums, weight_gradients(subject, (traced.loss.targets * wanted).sum()))
    kind = {"dtype": torch.float64, "device": targets.device}
    projections = torch.zeros(*targets.shape, layers, heads, len(projector.names), **kind)
    energy = torch.zeros(len(samples), layers, heads, **kind)
    profile, kept = torch.zeros(2, len(samples), layers, heads, *space.layout.offsets, **kind)
    inner = _no_inner(other, (*targets.shape, layers, heads), kind)
    if plan.keep_scores and "scores" not in sums:
        sums["scores"] = torch.zeros(layers, heads, space.length**2, **kind)
    for block in traced.gradients(plan.rows):
        folded = space.fold(block.values, block.rows)
        projected = projector.project(block.values, folded, block.layer, block.rows, fitted)
        projections[:, :, block.layer] += projected.transpose(0, 1)  # from target, batch, head, direction
        of_loss = torch.einsum("tb...,bt->b...", block.values, coefficients.to(block.values.dtype))
        energy[:, block.layer] += of_loss.double().square().sum((-2, -1))
        profile[:, block.layer] += torch.einsum("tb...,bt->b...", folded, coefficients.to(folded.dtype))
        kept[:, block.layer] += torch.einsum("tb...,bt->b...", folded, wanted.to(folded.dtype))
        if plan.keep_scores:
            matrices = sums["scores"].view(layers, heads, space.length, -1)
            of_group = torch.einsum("tb...,bt->...", block.values, wanted.to(block.values.dtype))
            matrices[block.layer, :, block.rows] += of_group
        if other is not None:
            for place, found in other.of_block(block, folded, space).items():
                inner[place][:, :, block.layer] += found.transpose(0, 1)
    if other is not None:
        inner |= other.of_weights(subject, traced)
    # Scaled so that inner products are those of the matrices that depend on the offset only.
    counts = pair_counts(space.layout)[0].to(targets.device).clamp(min=1).sqrt()
    _add(sums, {"offsets": (kept.sum(0) / counts).flatten(2)})
    _add(sums, {"profile": torch.stack([profile.sum(0), profile.square().sum(0)])})
    if fitted is not None:  # single gradients live on the real pairs of their sequence, their mean on those of any
        counts = pair_counts(space.layout, traced.valid).to(targets.device).clamp(min=1).sqrt()[:, None, None]
    offset_energy = (profile / counts).flatten(3).square().sum(-1)
    return _Part(
        targets.detach().double(), projections, coefficients.double(), energy, offset_energy, inner, traced.valid
    )


def kept_part(subject: Subject, samples: np.ndarray, group: np.ndarray, targets: Tensor) -> Tensor:
    """(batch, class) factors of the logits' gradients whose sum over the group is its label-dependent gradient.

    f_c - [c = label] with f_c the share of class c in the group: what all sequences' gradients of a logit have in
    common cancels exactly. A group of m sequences then falls short by 1 - 1 / m, which is made up for.
    """
    assert subject.labels is not None
    labels, classes, m = subject.labels, targets.shape[1], len(group)
    shares = np.bincount(labels[group], minlength=classes) / m
    factors = (shares - np.eye(classes)[labels[samples]]) * (m / max(m - 1, 1))
    return torch.as_tensor(factors, dtype=targets.dtype, device=targets.device)


def _no_inner(other: MeanGradient | None, shape: tuple[int, ...], kind: dict[str, Any]) -> dict[str, Tensor]:
    """Zeros (batch, target, layer, head) for what is summed up block by block."""
    there = [] if other is None else [place for place in ("offsets", "scores") if place in other.parts]
    return {place: torch.zeros(shape, **kind) for place in there}


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name].add_(value) if name in sums else value
