"""Linformer: keys and values of all positions are projected to a fixed number of them (Wang et al. 2020)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.efficient.projected import Projected, hide
from attnprobe.models.parts import Initial, normal


class Linformer(Projected):
    """softmax(q (E k)^T / sqrt(d_head)) F v; E and F are shared by the heads. Padding adds nothing to E k and F v."""

    def __init__(self, site: Site, settings: "LinformerSettings") -> None:
        super().__init__(site, settings)
        self.of_keys = nn.Parameter(torch.empty(settings.rank, site.length))  # E
        self.of_values = nn.Parameter(torch.empty(settings.rank, site.length))  # F

    def initial(self) -> Mapping[str, Initial]:
        return dict.fromkeys(("of_keys", "of_values"), normal(1 / math.sqrt(len(self.of_keys))))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        length = k.shape[-2]
        k, v = (e[:, :length].to(x.dtype) @ hide(x, valid) for e, x in ((self.of_keys, k), (self.of_values, v)))
        return F.scaled_dot_product_attention(q, k, v)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinformerSettings(MixerSettings):
    """Attention to a fixed number of projected keys: time and memory grow like the length (Wang et al. 2020)."""

    layer: ClassVar[type[Mixer]] = Linformer

    rank: int = 256  # keys and values after the projection

    def __post_init__(self) -> None:
        require_positive(self, "rank")
