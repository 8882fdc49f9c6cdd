"""What a position's input becomes before the first block; a hidden position shows nothing but that it is hidden."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.models.parts import Initial, Part, Update, normal, stacked, uniform
from attnprobe.tasks import MASK_ID, Spec

FanIn = Literal["with_mask", "without_mask"]


class Standardised(Part):
    """Knows in which units a model sees stored values."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)

    def standardise(self, inputs: Tensor) -> Tensor:
        """Stored values -> model units (zero mean, unit variance over the training set)."""
        return (inputs.to(self.mean.dtype) - self.mean) / self.std


class ValueEmbedding(Standardised):
    """Real values plus one mask channel -> d_model. A hidden position has all values zero and the mask channel one."""

    def __init__(self, spec: Spec, d_model: int, fan_in: FanIn = "with_mask") -> None:
        super().__init__(spec)
        self.bound = 1 / math.sqrt(spec.channels + (fan_in == "with_mask"))
        self.linear = nn.Linear(spec.channels + 1, d_model)

    def initial(self) -> Mapping[str, Initial]:
        """As any linear layer, unless the mask channel is not to be counted."""
        return {f"linear.{part}": uniform(self.bound) for part in ("weight", "bias")}

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> Tensor:
        values = self.standardise(inputs)
        if hidden is None:
            return self.linear(F.pad(values, (0, 1)))
        mask = hidden[..., None]
        return self.linear(torch.cat([values.masked_fill(mask, 0.0), mask.to(values.dtype)], dim=-1))


class ClassToken(Part):
    """A learned vector before the first position, from which labels can be read."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(d_model))

    def initial(self) -> Mapping[str, Initial]:
        return {"vector": normal()}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return StackedToken(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.vector.to(x.dtype).expand(len(x), 1, -1), x], dim=1)


class StackedToken(nn.Module):
    def __init__(self, layers: Sequence[ClassToken]) -> None:
        super().__init__()
        self.vector = stacked([m.vector for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        own = self.vector.to(x.dtype).repeat_interleave(len(x) // len(self.vector), dim=0)
        return torch.cat([own[:, None], x], dim=1)


class TokenEmbedding(Part):
    """Token ids -> d_model. A hidden position holds the mask id."""

    def __init__(self, spec: Spec, d_model: int) -> None:
        super().__init__()
        assert spec.vocabulary is not None
        self.table = nn.Embedding(spec.vocabulary, d_model)

    def updates(self) -> Mapping[str, Update]:
        return {"table.weight": Update(decay="bias")}

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> Tensor:
        tokens = inputs.long()
        return self.table(tokens if hidden is None else tokens.masked_fill(hidden, MASK_ID))
