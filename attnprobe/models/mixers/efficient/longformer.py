"""Longformer: a sliding window, and a few first positions that see all and are seen by all (Beltagy et al. 2020)."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.efficient.projected import Projected
from attnprobe.models.mixers.efficient.sparse import dense, in_blocks
from attnprobe.scores.visibility import Visibility


class Longformer(Projected):
    """Softmax over the keys at most ``window`` positions away and the first ``everywhere`` ones.

    With the same projections for the window and for the positions that see all. The benchmark's code has others for
    these, but its files name no such position.
    """

    obeys = Projected.obeys | {"causal"}

    def __init__(self, site: Site, settings: "LongformerSettings") -> None:
        super().__init__(site, settings)
        self.window, self.everywhere = settings.window, settings.everywhere

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        length, size, first = q.shape[-2], self.window, min(self.everywhere, q.shape[-2])
        blocks = -(-length // size)
        near = torch.arange(blocks, device=q.device)[:, None] + torch.arange(-1, 2, device=q.device)
        whole = torch.arange(-(-first // size), device=q.device).expand(blocks, -1)
        table = torch.cat([near, whole.masked_fill((whole[:, :, None] == near[:, None]).any(-1), -1)], 1)

        def rule(query: Tensor, key: Tensor) -> Tensor:
            seen = ((key - query).abs() <= self.window) | (key < first)
            return seen & (key <= query) if self.causal else seen

        mixed = in_blocks(q, k, v, size=size, table=table, rule=rule, valid=valid)
        if first == 0:
            return mixed
        seeing = dense(q[..., :first, :], k, v, Visibility(causal=self.causal, valid=valid))
        return torch.cat([seeing, mixed[..., first:, :]], -2)

    @classmethod
    def stack(cls, layers: object) -> None:
        """By its projections."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongformerSettings(MixerSettings):
    """A sliding window with some positions that see all: time grows like length times window (Beltagy et al. 2020)."""

    layer: ClassVar[type[Mixer]] = Longformer

    window: int = 256  # positions on each side
    everywhere: int = 1  # the first positions, which see all and are seen by all

    def __post_init__(self) -> None:
        require_positive(self, "window")
        require(self.everywhere >= 0, "everywhere", f"must not be negative, got {self.everywhere}")
