"""One pass over the data for one loss: everything about its score gradients that the alignment probe needs.

What is kept per sequence is small: projections, energies and the values that were differentiated. Whole gradients are
kept as means over groups of sequences, because cosines that are free of noise only need different groups.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.score_gradients import trace
from attnprobe.probes.sequences import Progress
from attnprobe.scores.directions import Projector
from attnprobe.scores.offset_sums import pair_counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """Sequences in the order of the groups; all arrays on the CPU."""

    targets: np.ndarray  # (n, target)
    projections: np.ndarray  # (n, target, layer, head, direction) of every target's gradient
    projection: np.ndarray  # (n, layer, head, direction) of the loss's gradient
    energy: np.ndarray  # (n, layer, head) squared norm of the loss's score gradient
    offset_energy: np.ndarray  # (n, layer, head) of its part that depends on the offset only
    profile: np.ndarray  # (layer, head, *offsets) mean of the gradient's sums by offset
    profile_error: np.ndarray  # (layer, head, *offsets) standard error of that mean
    group_means: dict[str, np.ndarray]  # (group, layer, head, ...): "offsets", "W_Q", "W_K" and perhaps "scores"

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
) -> Gathered:
    """Differentiate ``loss`` along the scores for the samples in ``groups``."""
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
            part = _differentiate(subject, samples, loss, projector, plan, sums, weights=len(groups) > 1)
            parts.append(part)
            profile += sums.pop("profile").cpu().numpy()
            done += len(samples)
            if progress is not None:
                progress(done, total)
        for name, value in sums.items():
            if name not in group_means:
                group_means[name] = np.empty((len(groups), *value.shape), kept)
            group_means[name][number] = value.div_(len(group)).cpu().numpy()
    targets, projections, coefficients, energy, offset_energy = (
        torch.cat([getattr(part, field.name) for part in parts]).cpu().numpy() for field in dataclasses.fields(_Part)
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
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """One batch, float64 on the device of the scores."""

    targets: Tensor  # (batch, target)
    projections: Tensor  # (batch, target, layer, head, direction)
    coefficients: Tensor  # (batch, target) d loss / d target
    energy: Tensor  # (batch, layer, head)
    offset_energy: Tensor  # (batch, layer, head)


def _differentiate(
    subject: Subject,
    samples: np.ndarray,
    loss: str,
    projector: Projector,
    plan: Plan,
    sums: dict[str, Tensor],
    *,
    weights: bool,
) -> _Part:
    """Per-sequence statistics of a batch; gradients summed over it are added to ``sums`` by name.

    weights: also those of W_Q and W_K, which only cosines between groups of sequences need, if the subject shows them.
    """
    space, (layers, heads) = projector.space, subject.shape
    traced = trace(subject, samples, loss, method=plan.method)
    fitted = projector.fitted(traced.valid)
    targets = traced.loss.targets.detach().requires_grad_()
    (coefficients,) = torch.autograd.grad(traced.loss.of(targets).sum(), targets)
    if weights:
        with contextlib.suppress(NotApplicableError):
            _add(sums, _weight_gradients(subject, (traced.loss.targets * coefficients).sum()))
    kind = {"dtype": torch.float64, "device": targets.device}
    projections = torch.zeros(*targets.shape, layers, heads, len(projector.names), **kind)
    energy = torch.zeros(len(samples), layers, heads, **kind)
    profile = torch.zeros(len(samples), layers, heads, *space.layout.offsets, **kind)
    if plan.keep_scores and "scores" not in sums:
        sums["scores"] = torch.zeros(layers, heads, space.length**2, **kind)
    for block in traced.gradients(plan.rows):
        folded = space.fold(block.values, block.rows)
        projected = projector.project(block.values, folded, block.layer, block.rows, fitted)
        projections[:, :, block.layer] += projected.transpose(0, 1)  # from target, batch, head, direction
        of_loss = torch.einsum("tb...,bt->b...", block.values, coefficients.to(block.values.dtype))
        energy[:, block.layer] += of_loss.double().square().sum((-2, -1))
        profile[:, block.layer] += torch.einsum("tb...,bt->b...", folded, coefficients.to(folded.dtype))
        if plan.keep_scores:
            matrices = sums["scores"].view(layers, heads, space.length, -1)
            matrices[block.layer, :, block.rows] += of_loss.sum(0)
    # Scaled so that inner products are those of the matrices that depend on the offset only.
    counts = pair_counts(space.layout)[0].to(targets.device).clamp(min=1)
    scaled = (profile / counts.sqrt()).flatten(3)
    _add(sums, {"offsets": scaled.sum(0), "profile": torch.stack([profile.sum(0), profile.square().sum(0)])})
    offset_energy = scaled.square().sum(-1)
    return _Part(targets.detach().double(), projections, coefficients.double(), energy, offset_energy)


def _weight_gradients(subject: Subject, total: Tensor) -> dict[str, Tensor]:
    """Gradient of the summed loss with respect to W_Q and W_K: (layer, head, d_head * d_model) each."""
    heads = subject.shape[1]
    found = {}
    for name, weights in zip(("W_Q", "W_K"), zip(*subject.projections(), strict=True), strict=True):
        gradients = torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True)
        found[name] = torch.stack([g.unflatten(0, (heads, -1)).flatten(1).double() for g in gradients])
    return found


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name].add_(value) if name in sums else value
