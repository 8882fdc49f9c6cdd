"""MEGA: gated attention of a single head to what a moving average has made of the inputs (Ma et al. 2023)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import require, require_positive
from attnprobe.models.dropout import Dropout, attention_site
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.offset_bias import OffsetBias, RotaryBias
from attnprobe.models.mixers.state_space.moving_average import MovingAverage
from attnprobe.models.parts import Initial, Part, constant, normal, twin

START = 0.02  # standard deviation of weights at the start
LAPLACE_MEAN, LAPLACE_DEVIATION = math.sqrt(0.5), math.sqrt(0.25 / math.pi)  # where it meets relu(x)^2 (appendix C)


class QueriesAndKeys(Part):
    """The same features, scaled and shifted once for queries and once for keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.empty(2, width)) for _ in range(2))

    def initial(self) -> Mapping[str, Initial]:
        return {"scale": normal(START), "shift": constant(0)}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(batch, length, width) -> q and k, the same each."""
        scale, shift = (t.view(-1, 1, 1, 2, x.shape[-1]) for t in (self.scale, self.shift))
        both = x.unflatten(0, (len(scale), -1))[..., None, :] * scale + shift
        return both.flatten(0, 1).unbind(-2)

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return twin(layers)


class Mega(Mixer):
    """x -> gate (h - x), which makes x + mixer(x) the gated mean of x and h that is published.

    h = silu(W_h a + W_o (pattern v * silu(W_r a))) of the moving average a; v comes from the inputs themselves. Chunks
    of positions attend to themselves alone. It has no scores to be observed: Laplace's pattern is no softmax of them.
    """

    obeys = frozenset({"causal", "attention_dropout"})
    gates = True
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "kernels": ("convolution.*",),
        "qk": ("shared.*", "queries_and_keys.*", "bias.*"),
        "attention": ("*",),
    }

    def __init__(self, site: Site, settings: "MegaSettings") -> None:
        super().__init__(site, settings)
        d, n, d_value = site.d_model, settings.d_shared, settings.d_value
        self.settings, self.causal = settings, site.causal
        self.dropout, self.site = site.dropout, attention_site(site.layer)
        self.convolution = MovingAverage(site, settings.states, settings.reach)
        self.value, self.shared, self.reset = nn.Linear(d, d_value), nn.Linear(d, n), nn.Linear(d, d_value)
        self.gate, self.candidate, self.out = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d_value, d)
        self.queries_and_keys = QueriesAndKeys(n)
        span = site.length if settings.chunk is None else min(site.length, settings.chunk)
        self.bias = OffsetBias(span) if settings.bias == "offsets" else RotaryBias(n)

    def initial(self) -> Mapping[str, Initial]:
        linear = ("value", "shared", "reset", "gate", "candidate", "out")
        weights = {f"{name}.weight": normal(START) for name in linear}
        return weights | {f"{name}.bias": constant(0) for name in linear}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (it gates, so blocks give it a residual)
        self, x: Tensor, *, residual: Tensor, valid: Tensor | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """``residual`` (batch, length, d_model): what the output is added to."""
        x = x if valid is None else x * valid[..., None]
        x = x if x.dtype == torch.float64 else x.float()  # there is no FFT in bfloat16
        average = F.silu(self.convolution(x))
        q, k = self.queries_and_keys(F.silu(self.shared(average)))
        mixed = self._attend(q, k, F.silu(self.value(x)), valid, dropout)
        h = F.silu(self.candidate(average) + self.out(mixed * F.silu(self.reset(average))))
        return self.gate(average).sigmoid() * (h - residual)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, dropout: Dropout | None) -> Tensor:
        """(batch, length, width) each -> like v."""
        length = q.shape[1]
        size = length if self.settings.chunk is None else min(length, self.settings.chunk)
        fill = -length % size
        there = torch.arange(length + fill, device=q.device) < length
        seen = there[None] if valid is None else F.pad(valid, (0, fill))
        seen = seen.unflatten(1, (-1, 1, size))  # (batch or 1, chunk, query, key)
        seen = seen & seen.new_ones(size, size).tril() if self.causal else seen
        q, k, v = (F.pad(t, (0, 0, 0, fill)).unflatten(1, (-1, size)) for t in (q, k, v))
        pattern = self._pattern(q @ k.mT, seen)
        if dropout is not None and self.dropout > 0:
            pattern = dropout.pattern(pattern, self.dropout, self.site)
        return (pattern @ v).flatten(1, 2)[:, :length]

    def _pattern(self, products: Tensor, seen: Tensor) -> Tensor:
        """(batch, chunk, query, key) q . k -> weights."""
        bias = self.bias(products.shape[-1])[:, None, None]

        def biased(scores: Tensor) -> Tensor:
            return (scores.unflatten(0, (len(bias), -1)) + bias).flatten(0, 1)

        if self.settings.pattern == "softmax":
            seen = seen | ~seen.any(-1, keepdim=True)  # a query that sees nothing, as padding may, is let see all
            return biased(products * self.settings.d_shared**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        scores = biased(products / seen.sum(-1, keepdim=True).clamp(min=1))
        return (1 + torch.erf((scores - LAPLACE_MEAN) / (LAPLACE_DEVIATION * math.sqrt(2)))) / 2 * seen

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> None:
        """By its parts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MegaSettings(MixerSettings):
    """Gated attention after a moving average (Ma et al. 2023)."""

    layer: ClassVar[type[Mixer]] = Mega

    states: int = 16  # of the moving average, in every channel
    reach: int | None = None  # positions over which the moving average is taken; none: all
    d_shared: int = 64  # width of queries and keys
    d_value: int = 128  # width of the values
    pattern: Literal["softmax", "laplace"] = "softmax"  # laplace: erf of every score by itself, for images as published
    chunk: int | None = None  # positions that attend to each other; none: all
    # what is added to the scores: a number for every offset, or the product of two vectors that positions turn
    bias: Literal["offsets", "rotary"] = "offsets"

    def __post_init__(self) -> None:
        require_positive(self, "states", "d_shared", "d_value")
        for name in ("reach", "chunk"):
            value = getattr(self, name)
            require(value is None or value > 0, name, f"must be at least 1, got {value}")
        even = self.bias == "offsets" or self.d_shared % 2 == 0
        require(even, "d_shared", f"must be even with bias='rotary', got {self.d_shared}")
