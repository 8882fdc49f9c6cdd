"""An offset profile that is added to the scores and never trained: where a model looks is given, not learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.errors import NotApplicableError
from attnprobe.models.parts import NO_TWIN, Initial, Part, constant
from attnprobe.scores.directions import ScoreSpace


class ScoreProfile(Part):
    """A buffer, so that every checkpoint holds the values; zero until ``set`` is called."""

    values: Tensor  # (layer, head, *offsets)

    def __init__(self, layers: int, heads: int, space: ScoreSpace) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("values", torch.zeros(layers, heads, *space.layout.offsets))

    def initial(self) -> Mapping[str, Initial]:
        return {"values": constant(0.0)}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return StackedScoreProfile(layers)

    def set(self, values: Tensor) -> None:
        self.values.copy_(values)

    def forward(self, size: int) -> Tensor:
        """(layer, head, size, size) for the first ``size`` queries and keys; 0 where one of them is the class token."""
        return spread(self.values, self.space, size)


class StackedScoreProfile(nn.Module):
    """Members of an ensemble have one profile, since they have one donor: it is spread once for all of them."""

    values: Tensor  # (member, layer, head, *offsets)

    def __init__(self, layers: Sequence[ScoreProfile]) -> None:
        super().__init__()
        if any(not torch.equal(own.values, layers[0].values) for own in layers):
            raise NotApplicableError("score profiles that differ cannot be stacked", NO_TWIN)
        self.space = layers[0].space
        self.register_buffer("values", torch.stack([own.values for own in layers]))

    def forward(self, size: int) -> Tensor:
        return spread(self.values[0], self.space, size)


def spread(values: Tensor, space: ScoreSpace, size: int) -> Tensor:
    """Profiles (..., *offsets) along the diagonals of the upper left (..., size, size) part of the score matrix."""
    matrix = space.expand(values, slice(0, space.length))
    return F.pad(matrix, (space.leading, 0, space.leading, 0))[..., :size, :size]
