"""Multi-head attention with two taps: an additive score offset, and the queries and keys themselves."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.models.dropout import Dropout
from attnprobe.models.positions import Rotary, take_positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """What one attention layer computed on one batch; q and k are as they enter the scores (after rotation)."""

    layer: int
    q: Tensor  # (batch, head, query, d_head)
    k: Tensor  # (batch, head, key, d_head)
    v: Tensor  # (batch, head, key, d_head)
    output: Tensor  # (batch, head, query, d_head), the pattern times v
    scale: float
    valid: Tensor | None  # (batch, length) bool, False = a padded key that no query sees; None = all are real
    causal: bool  # a query sees only itself and earlier keys

    @property
    def visible(self) -> Tensor | None:
        """bool, broadcastable to (batch, head, query, key); None = every key is visible. Made anew at each use."""
        return visible_keys(self.q.shape[-2], self.valid, causal=self.causal, device=self.q.device)

    def scores(self) -> Tensor:
        """Raw pre-softmax scores (batch, head, query, key), before masking and without any score offset."""
        return self.q @ self.k.mT * self.scale

    def pattern(self) -> Tensor:
        """Post-softmax weights (batch, head, query, key) without any score offset."""
        return _pattern(self.scores(), self.visible, None)


Observer = Callable[[AttentionCall], None]


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head) + score offset) v with separate projections q, k, v, o (all with bias)."""

    def __init__(
        self, d_model: int, heads: int, *, layer: int, causal: bool, rotary: Rotary | None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.layer, self.causal, self.dropout = heads, layer, causal, dropout
        self.q = nn.Linear(d_model, d_model)
        self.k = nn.Linear(d_model, d_model)
        self.v = nn.Linear(d_model, d_model)
        self.o = nn.Linear(d_model, d_model)
        self.rotary = rotary

    def forward(
        self,
        x: Tensor,
        *,
        valid: Tensor | None = None,
        score_offset: Tensor | None = None,
        observe: Observer | None = None,
        at: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """(batch, length, d_model) -> the same, or (batch, n, d_model) if only the positions ``at`` (batch, n) query.

        ``valid`` (batch, length) bool hides padded keys. ``score_offset`` broadcasts to (batch, head, query, key) and
        is added to the scaled scores: the gradient with respect to a zero offset is the gradient along the scores.
        ``dropout`` holds the counters of a training batch; its weights then take length x length memory.
        """
        assert at is None or not self.causal, "a causal pattern needs every query in its place"
        q, k, v = self.q(x if at is None else take_positions(x, at)), self.k(x), self.v(x)
        q, k, v = (self._split_heads(t) for t in (q, k, v))
        if self.rotary is not None:
            q, k = self.rotary(q, at), self.rotary(k)
        scale = q.shape[-1] ** -0.5
        if dropout is not None and self.dropout > 0:
            mask = visible_keys(x.shape[1], valid, causal=self.causal, device=x.device)
            pattern = _pattern(q @ k.mT * scale, mask, score_offset)
            mixed = dropout.pattern(pattern, self.dropout, attention_site(self.layer), at) @ v
        elif score_offset is None and valid is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)
        else:
            mask = visible_keys(x.shape[1], valid, causal=self.causal, device=x.device)
            if score_offset is not None:
                mask = score_offset if mask is None else torch.where(mask, score_offset, -torch.inf)
                mask = mask.to(q.dtype)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        if observe is not None:
            observe(
                AttentionCall(
                    layer=self.layer, q=q, k=k, v=v, output=mixed, scale=scale, valid=valid, causal=self.causal
                )
            )
        return self.o(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _pattern(scores: Tensor, visible: Tensor | None, offset: Tensor | None) -> Tensor:
    """Post-softmax weights (batch, head, query, key)."""
    scores = scores if offset is None else scores + offset
    return (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1)


def attention_site(layer: int) -> int:
    """Where dropout acts: 0 after the embedding, then of each layer its weights, its attention and its MLP."""
    return 1 + 3 * layer


def visible_keys(length: int, valid: Tensor | None, *, causal: bool, device: torch.device) -> Tensor | None:
    """Which keys each query sees: bool, broadcastable to (batch, head, query, key); None = all of them."""
    keys = None if valid is None else valid[:, None, None, :]
    if not causal:
        return keys
    past = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return past if keys is None else past & keys
