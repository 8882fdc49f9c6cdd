"""How a model knows where a token stands: fixed sinusoidal or learned tables, or rotation of queries and keys."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.models.parts import Initial, Part, Update, normal, stacked

BASE = 10_000.0


class NoPositions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class LearnedPositions(Part):
    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, d_model))

    def initial(self) -> Mapping[str, Initial]:
        return {"table": normal(0.02)}

    def updates(self) -> Mapping[str, Update]:
        return {"table": Update(decay="bias")}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return StackedPositions(layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class StackedPositions(nn.Module):
    def __init__(self, layers: Sequence[LearnedPositions]) -> None:
        super().__init__()
        self.table = stacked([m.table for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        folded = x.unflatten(0, (len(self.table), -1)) + self.table[:, None, : x.shape[1]]
        return folded.flatten(0, 1)


class SinusoidalPositions(nn.Module):
    """Fixed table of Vaswani et al. (2017): sin on even, cos on odd channels; added unscaled."""

    table: Tensor

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_table(length, d_model), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]].to(x.dtype)


def sinusoidal_table(length: int, d_model: int) -> Tensor:
    """(length, d_model) float32; column pair (2k, 2k+1) turns at angular frequency BASE^(-2k/d_model)."""
    angle = _angles(length, d_model)
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return table[:, :d_model].float()


class Rotary(nn.Module):
    """Rotary embedding (Su et al. 2021) of queries or keys over the full head dimension, in interleaved pairs."""

    cos: Tensor
    sin: Tensor

    def __init__(self, length: int, d_head: int) -> None:
        super().__init__()
        angle = _angles(length, d_head)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(batch, head, length, d_head) -> the same shape, each pair turned by position * frequency.

        at: (batch, length) int64 positions if they are not 0, 1, 2, ...
        """
        tables = (t[: x.shape[-2]] if at is None else t[at][:, None] for t in (self.cos, self.sin))
        cos, sin = (t.to(x.dtype) for t in tables)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _angles(length: int, width: int) -> Tensor:
    """(length, ceil(width / 2)) float64 angles position * BASE^(-2k/width)."""
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(BASE) / width))
    return torch.arange(length, dtype=torch.float64)[:, None] * frequency


def take_positions(x: Tensor, at: Tensor) -> Tensor:
    """The rows ``at`` (batch, n) int64 of each sequence of x (batch, length, width) -> (batch, n, width)."""
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (at + first).flatten()).unflatten(0, at.shape)
