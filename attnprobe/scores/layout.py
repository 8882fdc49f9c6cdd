"""Where positions lie, and the offsets between them."""

import dataclasses
import math

import torch
from torch import Tensor

from attnprobe.scores.visibility import Visibility


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How positions lie: one axis for a sequence, (height, width) for pixels row by row. offset = key - query."""

    shape: tuple[int, ...]
    causal: bool = False  # a query sees only itself and what comes before it in the sequence
    self_pairs: bool = True  # False: a position's own key is none of the pairs that are summed and centred over
    window: int | None = None  # a query sees only keys at most so many positions away (see ``Visibility``)
    block: int | None = None  # a query sees only its own block of so many positions and the neighbouring ones

    @property
    def rule(self) -> Visibility:
        """Which keys a query sees, padding aside."""
        return Visibility(causal=self.causal, window=self.window, block=self.block)

    @property
    def reach(self) -> int | None:
        """How many positions away a visible key may be; None: any number."""
        reaches = [self.window, None if self.block is None else 2 * self.block - 1]
        return min((reach for reach in reaches if reach is not None), default=None)

    @property
    def length(self) -> int:
        return math.prod(self.shape)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Shape of all arrays by offset; offset o sits at index o + size - 1 of its axis."""
        return tuple(2 * size - 1 for size in self.shape)

    def axes(self) -> list[Tensor]:
        """The offsets along each axis, int64, shaped to broadcast to ``offsets``."""
        ranges = [torch.arange(1 - size, size) for size in self.shape]
        return list(torch.meshgrid(*ranges, indexing="ij"))

    def distance(self) -> Tensor:
        """|offset| in positions, or the Euclidean distance in pixels: float64 of shape ``offsets``."""
        return torch.stack([axis.double() for axis in self.axes()]).square().sum(0).sqrt()

    def reachable(self) -> Tensor:
        """bool of shape ``offsets``: whether there is a pair of a query and a key it sees at that offset at all."""
        axes = self.axes()
        if not self.causal:
            reachable = torch.ones(self.offsets, dtype=torch.bool)
        elif len(axes) == 1:
            reachable = axes[0] <= 0
        else:
            reachable = (axes[0] < 0) | ((axes[0] == 0) & (axes[1] <= 0))
        if self.reach is not None:
            steps = axes[0] if len(axes) == 1 else axes[0] * self.shape[1] + axes[1]
            reachable &= steps.abs() <= self.reach
        if not self.self_pairs:
            reachable[tuple(size - 1 for size in self.shape)] = False
        return reachable
