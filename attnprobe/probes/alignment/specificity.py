"""Is a large gradient along a profile special to that profile, or would the same values anywhere do as well?

A t against zero only says that the mean gradient is no noise. Here its projection is ranked among those on controls:
the profile's own values in random order over the offsets, of the same norm once centred. For a gradient without
structure by offset the rank is uniform. All of it follows from the mean gradient folded by offset, in O(L log L).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attnprobe.scores.directions import Direction, ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import pair_counts, row_means
from attnprobe.statistics.permutations import permutation_p_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specificity:
    """Of one direction, per (layer, head)."""

    scale: np.ndarray  # root mean square of the mean projections on the controls, loss per unit score
    p_value: np.ndarray  # two-sided rank of the direction among its controls


def specificity(
    mean_profile: np.ndarray, direction: Direction, space: ScoreSpace, *, controls: int, generator: np.random.Generator
) -> Specificity:
    """Rank the projection of a mean gradient on ``direction`` among ``controls`` shuffles of its profile.

    mean_profile: (layer, head, *offsets) sums of the gradient over the pairs of each offset.
    """
    assert direction.profile is not None
    layout = space.layout
    reachable = layout.reachable()
    values = direction.profile.double()[reachable].numpy()
    gradient = mean_profile[..., reachable.numpy()]

    def project(values: np.ndarray) -> np.ndarray:
        profile = torch.zeros(layout.offsets, dtype=torch.float64)
        profile[reachable] = torch.from_numpy(values)
        return gradient @ values / centred_norm(layout, profile)

    null = np.stack([project(generator.permutation(values)) for _ in range(controls)])
    return Specificity(scale=np.sqrt(np.square(null).mean(0)), p_value=permutation_p_value(project(values), null))


def ranked(directions: Sequence[Direction], space: ScoreSpace) -> list[Direction]:
    """The directions that can be ranked: profiles that all heads share, with more than one value to shuffle.

    None with a class token: row sums over the positions alone then matter, and the folded gradient has lost them.
    """
    if space.leading:
        return []
    profiles = [d for d in directions if d.profile is not None and d.profile.shape == space.layout.offsets]
    return [d for d in profiles if d.profile is not None and int(d.profile.count_nonzero()) > 1]


def centred_norm(layout: Layout, profile: Tensor) -> float:
    """Frobenius norm of the matrix of a profile (*offsets) after centring its rows over their visible keys."""
    means = row_means(profile, layout)[0]
    seen = torch.arange(1, layout.length + 1) if layout.causal else torch.full((layout.length,), layout.length)
    energy = (pair_counts(layout)[0] * profile.square()).sum() - (seen * means.square()).sum()
    return math.sqrt(max(float(energy), 0.0))
