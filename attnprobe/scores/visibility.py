"""Who sees whom: the one answer to which keys a query may attend to."""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Visibility:
    """A key is visible to a query if every rule that is given allows it; by default all keys are."""

    causal: bool = False  # a query sees only itself and earlier keys
    window: int | None = None  # keys at most so many positions away
    block: int | None = None  # keys in the query's own block of so many positions, or in a neighbouring one
    valid: Tensor | None = None  # (batch, key) bool, False = padding, which no query sees
    dense: Tensor | None = None  # bool, broadcastable to (batch, head, query, key): any other rule

    def mask(self, queries: slice, keys: slice, device: torch.device | None = None) -> Tensor | None:
        """bool, broadcastable to (batch, head, queries, keys), True = visible; None = every one of these pairs is."""
        mask = None if self.valid is None else self.valid[:, None, None, keys]
        if (self.causal and keys.stop > queries.start + 1) or self.window is not None or self.block is not None:
            query = torch.arange(queries.start, queries.stop, device=device)[:, None]
            key = torch.arange(keys.start, keys.stop, device=device)
            offset = key - query
            if self.causal:
                mask = _both(mask, offset <= 0)
            if self.window is not None:
                mask = _both(mask, offset.abs() <= self.window)
            if self.block is not None:
                mask = _both(mask, (key // self.block - query // self.block).abs() <= 1)
        if self.dense is not None:
            mask = _both(mask, self.dense[..., queries, keys])
        return mask

    def bounds(self, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Causality, window and block let query i see the keys first_i ... stop_i - 1: (length,) int64 each."""
        place = torch.arange(length, device=device)
        first, stop = torch.zeros_like(place), torch.full_like(place, length)
        if self.causal:
            stop = place + 1
        if self.window is not None:
            first, stop = torch.maximum(first, place - self.window), torch.minimum(stop, place + self.window + 1)
        if self.block is not None:
            home = place // self.block
            first = torch.maximum(first, (home - 1) * self.block)
            stop = torch.minimum(stop, (home + 2) * self.block)
        return first, stop

    def whole(self, length: int, device: torch.device | None = None) -> Tensor | None:
        """``mask`` of all pairs of a sequence with itself."""
        return self.mask(slice(0, length), slice(0, length), device)


def as_mask(visible: Tensor | None, offset: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What a kernel is given: who sees whom; or the ``offset`` that is added to the scores, -inf where nobody looks."""
    if offset is None:
        return visible
    return (offset if visible is None else torch.where(visible, offset, -torch.inf)).to(dtype)


def _both(mask: Tensor | None, more: Tensor) -> Tensor:
    return more if mask is None else mask & more
