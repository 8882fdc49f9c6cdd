"""What one attention call computed: the only thing a probe of scores looks at."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from attnprobe.scores.visibility import Visibility


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """Of one layer on one batch; q and k are as they enter the scores (after rotation and normalisation).

    Keys and values may have fewer heads than queries; then each serves as many queries' heads, which lie side by side.
    """

    layer: int  # which attention call of the pass it is
    name: str = ""  # of the module that made it
    call: int = 0  # how often that module was called before in the same pass
    q: Tensor  # (batch, head, query, d_head)
    k: Tensor  # (batch, key head, key, d_head)
    v: Tensor  # (batch, key head, key, d_value)
    output: Tensor  # (batch, head, query, d_value), the pattern times v
    scale: float
    visibility: Visibility
    softcap: float | None = None  # scores are softcap * tanh(q . k * scale / softcap) before the bias
    bias: Tensor | None = None  # broadcastable to (batch, head, query, key); the model adds it: part of the scores
    sinks: Tensor | None = None  # (head,) one more score of every query that takes weight and has no key
    projected: bool = True  # False: the model showed nothing but scores, which are in q; k marks the keys

    @property
    def keys(self) -> Tensor:
        """k (batch, head, key, d_head), one for every head of the queries."""
        return self._of_all_heads(self.k)

    @property
    def values(self) -> Tensor:
        """v (batch, head, key, d_value), one for every head of the queries."""
        return self._of_all_heads(self.v)

    def _of_all_heads(self, x: Tensor) -> Tensor:
        times = self.q.shape[1] // x.shape[1]
        return x if times == 1 else x.repeat_interleave(times, dim=1)

    @property
    def visible(self) -> Tensor | None:
        """bool, broadcastable to (batch, head, query, key); None = every key is visible. Made anew at each use."""
        return self.visible_to(slice(0, self.q.shape[-2]))

    def visible_to(self, queries: slice) -> Tensor | None:
        """``visible`` of these queries only."""
        return self.visibility.mask(queries, slice(0, self.k.shape[-2]), self.q.device)

    def scores(self) -> Tensor:
        """Raw pre-softmax scores (batch, head, query, key), before masking and without any score offset of a probe."""
        return self.scores_of(slice(0, self.q.shape[-2]))

    def scores_of(self, queries: slice) -> Tensor:
        """``scores`` of these queries only, in at least float32."""
        dtype = torch.promote_types(self.q.dtype, torch.float32)
        scores = self.q[..., queries, :].to(dtype) @ self.keys.mT.to(dtype) * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return scores if self.bias is None else scores + self.bias[..., queries, :]

    def channels(self) -> tuple[Tensor, Tensor]:
        """Queries and keys (batch, head, length, channel) whose inner products, times ``scale``, are the scores.

        They are q and k; with a bias there is one more channel for every key, which holds the bias in the queries and
        marks the key in the keys. Under a softcap there are only such channels, which hold the whole scores. What is
        a function of inner products is so exact for such a model, too.
        """
        if self.softcap is not None:
            whole = self.scores() / self.scale
            return whole, _marks(whole).expand(*whole.shape[:2], -1, -1)
        if self.bias is None:
            return self.q, self.keys
        added = (self.bias / self.scale).to(self.q.device)
        q, k = (
            torch.cat([own, more.expand(*own.shape[:2], *more.shape[-2:])], -1)
            for own, more in ((self.q, added), (self.keys, _marks(added)))
        )
        return q, k

    def pattern(self) -> Tensor:
        """Post-softmax weights (batch, head, query, key) without any score offset of a probe."""
        return self.pattern_of(slice(0, self.q.shape[-2]))

    def pattern_of(self, queries: slice) -> Tensor:
        """``pattern`` of these queries only, in at least float32; rows sum to less than 1 where sinks take weight,
        and to 0 where a query, which is padding then, sees nothing.
        """
        visible, scores = self.visible_to(queries), self.scores_of(queries)
        scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
        if self.sinks is not None:
            sinks = self.sinks.to(scores)[:, None, None].expand(*scores.shape[:-1], 1)
            return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
        pattern = scores.softmax(-1)
        return pattern if visible is None else pattern.masked_fill(~visible, 0.0)


def _marks(added: Tensor) -> Tensor:
    """(key, key) what tells the keys apart in channels that hold something for every one of them."""
    return torch.eye(added.shape[-1], dtype=added.dtype, device=added.device)


Observer = Callable[[AttentionCall], None]
