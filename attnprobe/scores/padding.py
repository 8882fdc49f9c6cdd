"""Norms and row means of directions over the real positions of padded sequences, without the matrix where possible."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.scores.visible_sums import pair_counts, row_means

if TYPE_CHECKING:
    from attnprobe.scores.directions import Direction, ScoreSpace


def fitted_norm_and_means(space: "ScoreSpace", direction: "Direction", valid: Tensor) -> tuple[Tensor, Tensor]:
    """Norm after centring (m, layer, head) and row means (m, layer, head, length), float64, of one direction for m
    sequences of which only the ``valid`` positions (m, length) are real; axes are of size 1 where heads share them.

    Rows are centred over real visible keys, padded queries and keys count for nothing. The norm is exactly 0 where
    centring leaves nothing but rounding. O(length log length) each, except for a direction given as a matrix.
    """
    real = valid.double()
    seen = over_visible(real, space) * real  # keys per query
    if direction.matrix is not None:
        found = [_dense_energy_and_means(space, direction, mask) for mask in valid]
        energy, means, largest = (torch.stack(parts) for parts in zip(*found, strict=True))
    elif direction.factors is not None:
        energy, means, largest = _product_energy_and_means(space, direction.factors, real, seen)
    else:
        assert direction.profile is not None
        energy, means, largest = _profile_energy_and_means(space, direction.profile, valid, seen)
    return (energy.clamp(min=0) * (energy > 1e-13 * largest)).sqrt(), means


def over_visible(x: Tensor, space: "ScoreSpace") -> Tensor:
    """Sum of x (..., key) over the keys that each query sees, padding aside: (..., query)."""
    first, stop = space.layout.rule.bounds(space.length, x.device)
    sums = F.pad(x.cumsum(-1), (1, 0))
    return sums[..., stop] - sums[..., first]


def _profile_energy_and_means(
    space: "ScoreSpace", profile: Tensor, valid: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy after centring (m, layer, head), row means (m, layer, head, length), and energy before centring."""
    layout, axes = space.layout, tuple(range(-len(space.layout.shape), 0))
    profiles = profile.double() if profile.dim() > len(axes) else profile.double()[None, None]
    counts = pair_counts(layout, valid)
    kinds, flat = profiles.shape[:2], profiles.flatten(0, 1)
    middle = flat.mean(axes, keepdim=True)  # changes nothing, but keeps rounding small
    means = torch.stack([row_means(one, layout, valid) for one in flat - middle], 1)
    largest = (counts[:, None] * (flat - middle).square()).sum(axes)
    energy = largest - (seen[:, None] * means.square()).sum(-1)
    means = means + middle.flatten()[:, None] * valid[:, None]
    return energy.unflatten(1, kinds), means.unflatten(1, kinds), largest.unflatten(1, kinds)


def _product_energy_and_means(
    space: "ScoreSpace", factors: tuple[Tensor, Tensor], real: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    left, right = (factor.double() for factor in factors)
    middle = right.mean()  # taking it off changes nothing, but keeps rounding small
    sums, squares = (x * real for x in (right - middle, (right - middle).square()))
    sums, squares = (over_visible(x, space) for x in (sums, squares))
    means = sums / seen.clamp(min=1)
    weight = left.square() * real
    energy, largest = (weight * (squares - seen * means.square())).sum(-1), (weight * squares).sum(-1)
    means = (means + middle) * left * real
    return energy[:, None, None], means[:, None, None], largest[:, None, None]


def _dense_energy_and_means(
    space: "ScoreSpace", direction: "Direction", valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a matrix for one sequence, without the axis of sequences."""
    rows = slice(0, space.length)
    visible = space.visible(rows) & valid & valid[:, None]
    block = direction.block(space, rows).double() * visible
    means = block.sum(-1) / visible.sum(-1).clamp(min=1)
    energy = ((block - means[..., None]) * visible).square().sum((-2, -1))
    return energy, means, block.square().sum((-2, -1))
