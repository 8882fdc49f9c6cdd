"""What may be added to scores for every offset of key and query, in place of positions in the features."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.models.parts import Initial, Part, Update, normal, twin
from attnprobe.models.positions import BASE

START = 0.02  # standard deviation at the start


class OffsetBias(Part):
    """A number for every offset that is added to the scores."""

    def __init__(self, span: int) -> None:
        super().__init__()
        self.span, self.table = span, nn.Parameter(torch.empty(2 * span - 1))

    def initial(self) -> Mapping[str, Initial]:
        return {"table": normal(START)}

    def of_offsets(self, length: int) -> Tensor:
        """(member, 2 length - 1), by key - query from 1 - length on."""
        return self.table.view(-1, 2 * self.span - 1)[:, self.span - length : self.span + length - 1]

    def forward(self, length: int) -> Tensor:
        """(member, query, key)."""
        return self.of_offsets(length).unfold(-1, length, 1).flip(-2)

    def updates(self) -> Mapping[str, Update]:
        return {name: Update(decay="bias") for name, _ in self.named_parameters()}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return twin(layers)


class RotaryBias(OffsetBias):
    """a . b after a was turned by the query's position and b by the key's: a function of the offset, too."""

    def __init__(self, width: int) -> None:
        Part.__init__(self)
        self.a, self.b = (nn.Parameter(torch.empty(width)) for _ in range(2))

    def initial(self) -> Mapping[str, Initial]:
        return {"a": normal(START), "b": normal(START)}

    def of_offsets(self, length: int) -> Tensor:
        half = self.a.shape[-1] // 2
        (ax, ay), (bx, by) = (t.view(-1, 2, half).unbind(1) for t in (self.a, self.b))  # channels n and n + half turn
        offset = torch.arange(1 - length, length, device=self.a.device, dtype=self.a.dtype)
        frequency = BASE ** (-torch.arange(half, device=self.a.device, dtype=self.a.dtype) / half)
        angle = frequency[:, None] * offset
        return (ax * bx + ay * by) @ angle.cos() + (ay * bx - ax * by) @ angle.sin()
