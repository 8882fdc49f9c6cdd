"""Every position receives a learned share of the mean over all of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.parts import Initial, Update, constant, stacked
from attnprobe.models.torch_layers import StackedLinear


class Averaging(Mixer):
    """share * mean(x) + (1 - share) * x with one share per channel, then a linear layer."""

    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {"averaging": ("*",), "shares": ("share",)}

    def __init__(self, site: Site, settings: "AveragingSettings") -> None:
        super().__init__(site, settings)
        self.start = settings.start
        self.share = nn.Parameter(torch.empty(site.d_model))
        self.out = nn.Linear(site.d_model, site.d_model)

    def initial(self) -> Mapping[str, Initial]:
        return {"share": constant(self.start)}

    def updates(self) -> Mapping[str, Update]:
        return {"share": Update(lr=1e-3, decay="never")}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return StackedAveraging(layers)

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        valid = x.new_ones(x.shape[:2]) if valid is None else valid.to(x.dtype)
        mean = (x * valid[..., None]).sum(1, keepdim=True) / valid.sum(1)[:, None, None]
        share = self.share.view(-1, x.shape[-1])  # (members, d_model)
        share = share.repeat_interleave(len(x) // len(share), dim=0)[:, None]
        return self.out(share * mean + (1 - share) * x)


class StackedAveraging(Averaging):
    def __init__(self, layers: Sequence[Averaging]) -> None:
        nn.Module.__init__(self)
        self.share, self.out = stacked([m.share for m in layers]), StackedLinear([m.out for m in layers])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragingSettings(MixerSettings):
    """A learned share of the mean over all positions."""

    layer: ClassVar[type[Mixer]] = Averaging

    start: float = 0.5  # of the shares
