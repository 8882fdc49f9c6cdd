"""Linear attention: softmax's exp(q . k) replaced by an inner product of features (Katharopoulos et al. 2020)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.efficient.projected import Projected, hide, pad_to
from attnprobe.models.parts import Initial

CHUNK = 64  # positions between which the causal sum is a matrix product


def weigh(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """sum_j (q_i . k_j) v_j / sum_j (q_i . k_j) over all keys or those up to i; (batch, head, length, n) >= 0.

    Time and memory grow like the length.
    """
    if not causal:
        total = q @ k.sum(-2)[..., None]
        return q @ (k.mT @ v) / total.clamp(min=torch.finfo(total.dtype).tiny)  # padding may see nothing
    return weigh_up_to(q, k, v, None)


def weigh_up_to(q: Tensor, k: Tensor, v: Tensor, height: Tensor | None) -> Tensor:
    """``weigh`` over the keys up to each query, whose features are ``k`` exp(height) with (batch, head, length) heights
    that never fall; None: all are 0. Nothing of a later key, its height included, touches what comes before it.
    """
    length = q.shape[-2]
    q, k, v = (pad_to(t, CHUNK).unflatten(-2, (-1, CHUNK)) for t in (q, k, v))  # (batch, head, chunk, position, ...)
    v = F.pad(v, (0, 1), value=1.0)  # with the sum of the weights behind
    within = (q @ k.mT).tril()
    if height is None:
        states = k.mT @ v
        before = q @ (states.cumsum(2) - states)  # of all chunks before
    else:
        height = F.pad(height, (0, -length % CHUNK), mode="replicate").unflatten(-1, (-1, CHUNK))
        within = within * (height[..., None, :] - height[..., None]).clamp(max=0).exp()
        last = height[..., -1:]
        states = (k * (height - last).exp()[..., None]).mT @ v  # in units of exp(last)
        earlier = torch.cat([last[..., :1, :], last[..., :-1, :]], -2)  # there is nothing before the first chunk
        before = q @ _sums_before(states, (earlier - last).exp()) * (earlier - height).clamp(max=0).exp()[..., None]
    *sums, total = (before + within @ v).flatten(2, 3)[..., :length, :].split([v.shape[-1] - 1, 1], -1)
    return sums[0] / total.clamp(min=torch.finfo(total.dtype).tiny)


def _sums_before(states: Tensor, fading: Tensor) -> Tensor:
    """Of the states (batch, head, chunk, ...) of all chunks before each, in the units of the one before; ``fading``
    (batch, head, chunk, 1) turns those into its own.
    """
    found = [torch.zeros_like(states[:, :, 0])]
    for state, fade in zip(states.unbind(2)[:-1], fading.unbind(2)[:-1], strict=True):
        found.append(found[-1] * fade[..., None] + state)
    return torch.stack(found, 2)


class LinearAttention(Projected):
    """Features elu(x) + 1."""

    obeys = Projected.obeys | {"causal"}

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return weigh(F.elu(q) + 1, hide(F.elu(k) + 1, valid), v, causal=self.causal)

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> None:
        """By its projections."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSettings(MixerSettings):
    """Linear attention: time and memory grow like the length (Katharopoulos et al. 2020)."""

    layer: ClassVar[type[Mixer]] = LinearAttention


class Performer(Projected):
    """Positive random features whose inner product is exp(q . k / sqrt(d_head)) on average (Choromanski et al. 2021).

    The projections are orthogonal within blocks of d_head and keep the lengths of Gaussian vectors; drawn once.
    """

    obeys = Projected.obeys | {"causal"}
    directions: Tensor

    def __init__(self, site: Site, settings: "PerformerSettings") -> None:
        super().__init__(site, settings)
        self.register_buffer("directions", torch.empty(settings.features, self.d_head))

    def initial(self) -> Mapping[str, Initial]:
        return {"directions": orthogonal_gaussians}

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        scale = q.shape[-1] ** -0.25
        q, k = (self._logarithms(t * scale) for t in (q, k))
        # A common factor of a query's features, or of all its keys', cancels; exp of what is left cannot overflow.
        q = (q - q.detach().amax(-1, keepdim=True)).exp()
        seen = k if valid is None else k.masked_fill(~valid[:, None, :, None], -math.inf)
        height = seen.detach().amax(-1).clamp(min=torch.finfo(k.dtype).min)  # -inf at padding
        height = height.cummax(-1).values if self.causal else height.amax(-1, keepdim=True)
        k = (seen - height[..., None]).exp()
        return weigh_up_to(q, k, v, height) if self.causal else weigh(q, k, v, causal=False)

    def _logarithms(self, x: Tensor) -> Tensor:
        """Of the features times sqrt(number of features)."""
        return x @ self.directions.to(x.dtype).mT - x.square().sum(-1, keepdim=True) / 2


def orthogonal_gaussians(tensor: Tensor, generator: torch.Generator) -> None:
    """Rows (n, d) that are orthogonal within blocks of d, each as long as a Gaussian vector."""
    n, d = tensor.shape
    blocks = torch.randn(-(-n // d), d, d, generator=generator, dtype=torch.float64)
    lengths = torch.randn(n, d, generator=generator, dtype=torch.float64).norm(dim=-1)
    q, r = torch.linalg.qr(blocks)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # else not uniform over rotations
    tensor.copy_(q.mT.flatten(0, 1)[:n] * lengths[:, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformerSettings(MixerSettings):
    """Softmax attention estimated by random features: time grows like the length (Choromanski et al. 2021)."""

    layer: ClassVar[type[Mixer]] = Performer

    features: int = 256  # random features of every head

    def __post_init__(self) -> None:
        require_positive(self, "features")
