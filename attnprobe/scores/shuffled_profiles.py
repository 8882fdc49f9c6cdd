"""Controls of an offset profile: the same values elsewhere, as large once rows are centred."""

import numpy as np
import torch
from torch import Tensor

from attnprobe.scores.directions import Direction, ScoreSpace, norm_and_means
from attnprobe.scores.visible_sums import occurring


def shuffled_profile(space: ScoreSpace, profile: Tensor, generator: np.random.Generator) -> Tensor:
    """The values of each head (layer, head, *offsets) permuted over the offsets that a query can reach, then scaled to
    the Frobenius norm of the row-centred original.
    """
    reachable = occurring(space.layout)
    values = torch.from_numpy(generator.permuted(profile[..., reachable].numpy(), axis=-1))
    mixed = torch.zeros_like(profile)
    mixed[..., reachable] = values
    norms = [norm_and_means(space, Direction(name="", profile=p))[0] for p in (profile, mixed)]
    factor = torch.nan_to_num(norms[0] / norms[1], nan=0.0, posinf=0.0)
    return mixed * factor.reshape(*factor.shape, *(1 for _ in space.layout.shape))
