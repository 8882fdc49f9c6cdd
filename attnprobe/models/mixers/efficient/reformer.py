"""Reformer: queries, which are also keys, meet only those that random rotations hash alike (Kitaev et al. 2020)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.efficient.projected import Projected
from attnprobe.models.parts import Initial, normal

MOST_ROUNDS = 64  # each is a pass of its own over the sequence
TO_ITSELF = -1e5  # the score of a position with itself, which it takes only where it sees nothing else


class Reformer(Projected):
    """softmax(q_i . q_j / (|q_j| sqrt(d_head))) v_j over the keys of the same bucket in the same or the previous chunk.

    Positions are sorted by bucket, then cut into chunks; rounds with rotations of their own are averaged by how much
    weight each has seen. A position is its own key only where it sees no other. Where chunks end depends on all
    positions, so which earlier keys one sees would depend on later ones: it cannot be causal.
    """

    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {"qk": ("q.*",), "attention": ("*",)}
    rotations: Tensor

    def __init__(self, site: Site, settings: "ReformerSettings") -> None:
        super().__init__(site, settings)
        del self.k  # keys are the queries, scaled to length 1
        self.buckets, self.chunk = settings.buckets, settings.chunk
        self.register_buffer("rotations", torch.empty(settings.rounds, self.d_head, settings.buckets // 2))

    def initial(self) -> Mapping[str, Initial]:
        return {"rotations": normal()}

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        q, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.v))
        return self.o(self.mix(q, q, v, valid).transpose(1, 2).flatten(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        rounds = [self._round(q, v, valid, rotation) for rotation in self.rotations.to(q.dtype)]
        outputs, weights = (torch.stack(parts) for parts in zip(*rounds, strict=True))
        return (outputs * weights.softmax(0)[..., None]).sum(0)

    def bucket(self, q: Tensor, valid: Tensor | None, rotation: Tensor) -> Tensor:
        """(batch, head, length) int64; padding has one of its own, the last."""
        if self.buckets == 1:
            found = torch.zeros(q.shape[:-1], dtype=torch.int64, device=q.device)
        else:
            turned = q.detach() @ rotation
            found = torch.cat([turned, -turned], -1).argmax(-1)
        return found if valid is None else found.masked_fill(~valid[:, None], self.buckets)

    def _round(self, q: Tensor, v: Tensor, valid: Tensor | None, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """What one hashing gives: output (batch, head, length, d_head), logarithm of the weight seen (..., length)."""
        length, size = q.shape[-2], min(self.chunk, q.shape[-2])
        bucket, order = self.bucket(q, valid, rotation).sort(dim=-1, stable=True)
        fill = -length % size

        def chunks(x: Tensor, value: float) -> Tensor:
            """Sorted (batch, head, length, ...) -> (batch, head, chunk, size, ...)."""
            ends = (0, 0) * (x.dim() - 3)
            return F.pad(x, (*ends, 0, fill), value=value).unflatten(2, (-1, size))

        def with_previous(x: Tensor, value: float) -> Tensor:
            ends = (0, 0) * (x.dim() - 3)
            before = F.pad(x, (*ends, 1, 0), value=value)[:, :, :-1]
            return torch.cat([before, x], 3)

        q, v = (chunks(t.gather(2, order[..., None].expand_as(t)), 0.0) for t in (q, v))
        place, own = chunks(order, -1), chunks(bucket, -1)
        keys, values = with_previous(F.normalize(q, dim=-1), 0.0), with_previous(v, 0.0)
        key_place, key_bucket = with_previous(place, -1), with_previous(own, -1)
        scores = q @ keys.mT * q.shape[-1] ** -0.5
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # bfloat16 could not hold their sum
        seen = (own[..., None] == key_bucket[..., None, :]) & (key_place >= 0)[..., None, :]
        scores = scores.masked_fill(place[..., None] == key_place[..., None, :], TO_ITSELF)
        scores = scores.masked_fill(~seen, -math.inf).masked_fill((place < 0)[..., None], 0.0)
        total = scores.logsumexp(-1, keepdim=True)
        mixed = ((scores - total).exp() @ values).flatten(2, 3)[:, :, :length]
        back = order.argsort(-1)
        return mixed.gather(2, back[..., None].expand_as(mixed)), total.flatten(2)[..., :length].gather(2, back)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReformerSettings(MixerSettings):
    """Attention among positions that are hashed alike: time grows like length times chunk (Kitaev et al. 2020)."""

    layer: ClassVar[type[Mixer]] = Reformer

    buckets: int = 32  # of a hash, even or 1
    chunk: int = 64  # sorted positions that are looked at together
    rounds: int = 2  # hashes

    def __post_init__(self) -> None:
        require_positive(self, "buckets", "chunk", "rounds")
        require(self.rounds <= MOST_ROUNDS, "rounds", f"must be at most {MOST_ROUNDS}, got {self.rounds:,}")
        require(self.buckets == 1 or self.buckets % 2 == 0, "buckets", f"must be even or 1, got {self.buckets}")
