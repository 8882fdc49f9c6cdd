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

    @property
    def visible(self) -> Tensor | None:
        """bool, broadcastable to (batch, head, query, key); None = every key is visible. Made anew at each use."""
        return self.visible_to(slice(0, self.q.shape[-2]))

    def visible_to(self, queries: slice) -> Tensor | None:
        """``visible`` of these queries only."""
        return self.visibility.mask(queries, slice(0, self.k.shape[-2]), self.q.device)

    def scores(self) -> Tensor:
        """Raw pre-softmax scores (batch, head, query, key), before masking and without any score offset."""
        return self.q @ self.k.mT * self.scale

    def pattern(self) -> Tensor:
        """Post-softmax weights (batch, head, query, key) without any score offset."""
        visible, scores = self.visible, self.scores()
        return (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1)


Observer = Callable[[AttentionCall], None]
