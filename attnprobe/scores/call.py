"""What one attention call computed: the only thing a probe of scores looks at."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from attnprobe.scores.visibility import Visibility


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """Of one layer on one batch; q and k are as they enter the scores (after rotation)."""

    layer: int  # which attention call of the pass it is
    name: str = ""  # of the module that made it
    call: int = 0  # how often that module was called before in the same pass
    q: Tensor  # (batch, head, query, d_head)
    k: Tensor  # (batch, head, key, d_head)
    v: Tensor  # (batch, head, key, d_head)
    output: Tensor  # (batch, head, query, d_head), the pattern times v
    scale: float
    visibility: Visibility
    bias: Tensor | None = None  # (head, query, key) that the model adds to the scores of every sequence: part of them

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
        scores = self.q[..., queries, :].to(dtype) @ self.k.mT.to(dtype) * self.scale
        return scores if self.bias is None else scores + self.bias[..., queries, :]

    def channels(self) -> tuple[Tensor, Tensor]:
        """Queries and keys (batch, head, length, channel) whose inner products, times ``scale``, are the scores.

        They are q and k; with a bias there is one more channel for every key, which holds the bias in the queries and
        marks the key in the keys. What is a function of inner products is so exact for such a model, too.
        """
        if self.bias is None:
            return self.q, self.k
        added = (self.bias / self.scale).to(self.q.device)
        marks = torch.eye(self.k.shape[-2], dtype=added.dtype, device=added.device)
        q, k = (
            torch.cat([own, more.expand(*own.shape[:2], *more.shape[-2:])], -1)
            for own, more in ((self.q, added), (self.k, marks))
        )
        return q, k

    def pattern(self) -> Tensor:
        """Post-softmax weights (batch, head, query, key) without any score offset of a probe."""
        visible, scores = self.visible, self.scores()
        return (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1)


Observer = Callable[[AttentionCall], None]
