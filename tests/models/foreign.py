"""A mixer as somebody else would write it: a linear recurrence, with everything it must declare."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from attnprobe.models.mixers import Mixer, MixerSettings, Site
from attnprobe.models.parts import Update, normal, stacked
from attnprobe.models.torch_layers import StackedLinear


class Recurrence(Mixer):
    """h_t = a h_(t-1) + x_t with one 0 < a < 1 per channel, from both ends unless causal, then a linear layer."""

    obeys: ClassVar = frozenset({"causal"})
    parameter_sets: ClassVar = {"recurrence": ("*",), "decays": ("decay",)}

    def __init__(self, site: Site, settings: "RecurrenceSettings") -> None:
        super().__init__(site, settings)
        self.causal, self.spread = site.causal, settings.spread
        self.decay = nn.Parameter(torch.randn(site.d_model))  # as torch's layers do; no draw of a constructor counts
        self.out = nn.Linear(site.d_model, site.d_model)

    def initial(self):
        return {"decay": normal(self.spread)}

    def updates(self):
        return {"decay": Update(lr=1e-4, decay="never")}

    @classmethod
    def stack(cls, layers):
        return StackedRecurrence(layers)

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        x = x if valid is None else x * valid[..., None]
        a = self.decay.sigmoid().view(-1, x.shape[-1])  # (members, d_model)
        position = torch.arange(x.shape[1], device=x.device)
        lag = position[:, None] - position
        lag = lag if self.causal else lag.abs()
        kernel = a[:, None, None] ** lag.clamp(min=0)[..., None] * (lag >= 0)[..., None]
        return self.out(torch.einsum("mtsd,mbsd->mbtd", kernel, x.unflatten(0, (len(a), -1))).flatten(0, 1))


class StackedRecurrence(Recurrence):
    def __init__(self, layers: Sequence[Recurrence]) -> None:
        nn.Module.__init__(self)
        self.causal, self.decay = layers[0].causal, stacked([m.decay for m in layers])
        self.out = StackedLinear([m.out for m in layers])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrenceSettings(MixerSettings):
    """A linear recurrence of every channel."""

    layer: ClassVar[type[Mixer]] = Recurrence

    spread: float = 1.0  # standard deviation of the decays' logits at the start
