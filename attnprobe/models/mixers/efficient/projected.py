"""What the efficient mixers share: queries, keys and values of heads, and the output projection."""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site


class Projected(Mixer):
    """W_O applied to what ``mix`` makes of q, k and v; like attention, all with bias."""

    obeys = frozenset({"heads"})
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {"qk": ("q.*", "k.*"), "attention": ("*",)}

    def __init__(self, site: Site, settings: MixerSettings) -> None:
        super().__init__(site, settings)
        self.heads, self.causal, self.d_head = site.heads, site.causal, site.d_model // site.heads
        self.q, self.k, self.v, self.o = (nn.Linear(site.d_model, site.d_model) for _ in range(4))

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.o(self.mix(q, k, v, valid).transpose(1, 2).flatten(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """(batch, head, length, d_head) each -> the same; ``valid`` (batch, length) bool is False at padding."""
        raise NotImplementedError


def hide(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero at the padding; x (batch, head, length, ...)."""
    return x if valid is None else x * valid[:, None, :, None].to(x.dtype)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """(..., length, width) with zeros behind until the length is a multiple."""
    return F.pad(x, (0, 0, 0, -x.shape[-2] % multiple))
