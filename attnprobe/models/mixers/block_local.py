"""Attention within windows: each sees itself and its two neighbours, without a length x length matrix."""

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import require_positive
from attnprobe.models.mixers.attention import Attention
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.scores.visibility import Visibility, as_mask


class BlockLocal(Attention):
    """Multi-head attention of queries in window j to the keys in windows j - 1, j and j + 1 (causal: not j + 1).

    As in the models for 16 000 positions and more of Amos et al. 2023. The last window may be shorter than the others.
    Sliding: a query sees only keys less than ``window`` positions away.
    """

    obeys = Attention.obeys - {"attention_dropout"}
    masks, selects = True, False
    called = "block_local"

    def __init__(self, site: Site, window: int, *, sliding: bool = False) -> None:
        super().__init__(
            site.d_model, site.heads, layer=site.layer, causal=site.causal, rotary=site.rotary, init=site.init
        )
        self.window, self.sliding = window, sliding

    def visibility(self, valid: Tensor | None) -> Visibility:
        if self.sliding:
            return Visibility(causal=self.causal, valid=valid, window=self.window - 1)
        return Visibility(causal=self.causal, valid=valid, block=self.window)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, visibility: Visibility, offset: Tensor | None
    ) -> Tensor:
        """Windows are folded into the batch axis; an offset is read at visible pairs."""
        batch, length, size = len(q), q.shape[-2], self.window
        if length <= size:  # a single window
            mask = visibility.whole(length, q.device)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=as_mask(mask, offset, q.dtype), scale=scale)
        windows = -(-length // size)
        fill = windows * size - length
        queries = F.pad(q, (0, 0, 0, fill)).unflatten(2, (windows, size))
        keys, values = (self._context(F.pad(t, (0, 0, 0, fill)), 2) for t in (k, v))
        mask = self._mask(visibility, windows, length, q.device)
        added = None if offset is None else self._offset_in_windows(offset, batch, windows, fill)
        folded = (t.transpose(1, 2).flatten(0, 1) for t in (queries, keys, values))
        mask = mask.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]  # (batch * window, 1, query, key)
        mixed = F.scaled_dot_product_attention(*folded, attn_mask=as_mask(mask, added, q.dtype), scale=scale)
        return mixed.unflatten(0, (batch, windows)).transpose(1, 2).flatten(2, 3)[..., :length, :]

    def _context(self, x: Tensor, axis: int) -> Tensor:
        """Axis ``axis`` of windows * size keys -> two, window and the keys it may see; zeros where there is none."""
        size, behind = self.window, 0 if self.causal else 1
        windows = x.shape[axis] // size
        padded = F.pad(x, (*(0, 0) * (x.dim() - 1 - axis), size, behind * size)).unflatten(axis, (-1, size))
        # Copies, because attention is slow on views whose channels do not lie side by side.
        return torch.cat([padded.narrow(axis, first, windows) for first in range(2 + behind)], axis + 1)

    def _mask(self, visibility: Visibility, windows: int, length: int, device: torch.device) -> Tensor:
        """(batch or 1, window, query or 1, key) bool; a query that sees nothing, as padding may, is let see all."""
        size = self.window
        there = torch.arange(windows * size, device=device) < length
        valid = there[None] if visibility.valid is None else F.pad(visibility.valid, (0, windows * size - length))
        mask = self._context(valid.to(torch.uint8), 1).bool()[:, :, None]
        query = torch.arange(size, device=device)[:, None]
        key = torch.arange(mask.shape[-1], device=device) - size
        if self.causal:
            mask = mask & (key <= query)
        if self.sliding:
            mask = mask & ((key - query).abs() < size)
        return mask | ~mask.any(-1, keepdim=True)

    def _offset_in_windows(self, offset: Tensor, batch: int, windows: int, fill: int) -> Tensor:
        """Broadcastable to (batch, head, length, length) -> to (batch * window, head, size, key)."""
        length = windows * self.window - fill
        heads = 1 if offset.dim() < 3 else offset.shape[-3]
        offset = offset.expand(batch, heads, length, length)
        rows = F.pad(offset, (0, fill, 0, fill)).unflatten(2, (windows, self.window))
        context = self._context(rows, 4)  # (batch, head, window, size, window, key)
        own = context.diagonal(dim1=2, dim2=4).movedim(-1, 1)  # (batch, window, head, size, key)
        return own.flatten(0, 1)


def squares_of_windows(length: int, window: int) -> tuple[int, int]:
    """As ``MixerSettings.squares``: three windows of queries see as many keys each as all three are."""
    return max(1, length // (3 * window)), min(length, 3 * window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockLocalSettings(MixerSettings):
    """Softmax attention within windows and between neighbouring ones, for long sequences (Amos et al. 2023)."""

    layer: ClassVar[type[Mixer]] = BlockLocal

    window: int = 4096  # positions
    sliding: bool = False  # see fewer than window positions to each side; false: all of neighbouring windows

    def __post_init__(self) -> None:
        require_positive(self, "window")

    def squares(self, length: int) -> tuple[int, int]:
        return squares_of_windows(length, self.window)

    def make(self, site: Site) -> BlockLocal:
        return BlockLocal(site, self.window, sliding=self.sliding)
