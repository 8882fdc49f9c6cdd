"""SPADE: attention in windows, with a state-space model beside it in the first layer (Zuo et al. 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.block_local import BlockLocal, squares_of_windows
from attnprobe.models.mixers.contract import Mixer, Site
from attnprobe.models.mixers.state_space.s4 import S4Settings


class Spade(BlockLocal):
    """W [norm(K * u + skip u), norm(attention u)] in the first layers, attention alone in the others."""

    called = "spade"
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **BlockLocal.parameter_sets,
        "kernels": ("convolution.*",),
    }

    def __init__(self, site: Site, settings: "SpadeSettings") -> None:
        super().__init__(site, settings.window, sliding=settings.sliding)
        self.augmented = site.layer < settings.augmented
        if self.augmented:
            self.convolution = settings.convolution(site)
            self.norm_system, self.norm_attention = nn.LayerNorm(site.d_model), nn.LayerNorm(site.d_model)
            self.combine = nn.Linear(2 * site.d_model, site.d_model)

    def forward(self, x: Tensor, *, valid: Tensor | None = None, **asked: Any) -> Tensor:
        attended = super().forward(x, valid=valid, **asked)
        if not self.augmented:
            return attended
        x = x if valid is None else x * valid[..., None]
        x = x if x.dtype == torch.float64 else x.float()  # there is no FFT in bfloat16
        both = self.norm_system(self.convolution(x)), self.norm_attention(attended)
        return self.combine(torch.cat(both, -1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpadeSettings(S4Settings):
    """Attention in windows, and S4 for what is further away, published runs of which never move (Zuo et al. 2022)."""

    layer: ClassVar[type[Mixer]] = Spade

    window: int = 128  # positions
    sliding: bool = True  # see fewer than window positions to each side; false: all of neighbouring windows
    augmented: int = 1  # the first so many layers have S4 beside the attention

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "window")
        require(self.augmented >= 0, "augmented", f"must not be negative, got {self.augmented}")

    def squares(self, length: int) -> tuple[int, int]:
        return squares_of_windows(length, self.window)

    def make(self, site: Site) -> Spade:
        return Spade(site, self)
