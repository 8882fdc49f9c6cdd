"""From the mask that a kernel was given to who sees whom, and the bias that was hidden in it."""

import itertools

import torch
from torch import Tensor

from attnprobe.errors import NotApplicableError
from attnprobe.scores.visibility import Visibility, as_mask

HIDDEN = -9e3  # what is added to hide a key is -1e4 or less; e to that power is 0 in every floating type


def rules(
    mask: object, shape: tuple[int, ...], *, causal: bool, real: Tensor | None, device: torch.device
) -> tuple[Visibility, Tensor | None]:
    """Who sees whom among scores of ``shape`` (batch, head, query, key), and the bias (None if there is none).

    mask: None, bool (True = visible) or float (added to the scores), broadcastable to the scores. causal: without a
    mask, whether a query sees only keys at most as far from the start as itself. real: (batch, length) bool, False at
    padding; what padded queries see is no rule, for nothing reads it.
    """
    queries, keys = shape[-2:]
    if mask is None and causal and queries != keys:
        return Visibility(dense=torch.ones(queries, keys, dtype=torch.bool, device=device).tril()), None
    if mask is None:
        return Visibility(causal=causal), None
    if not isinstance(mask, Tensor) or mask.dim() > 4 or (mask.dim() == 2 and mask.shape != (queries, keys)):
        kind = f"{mask.dim()} axes" if isinstance(mask, Tensor) else type(mask).__name__
        reason = f"this kernel's mask ({kind}) does not tell who sees whom"
        raise NotApplicableError(reason, hint="load the model with attn_implementation sdpa or eager")
    mask = mask[(None,) * (4 - mask.dim())][..., :keys]
    if mask.dtype == torch.bool:
        return visibility(mask.expand(*mask.shape[:2], queries, keys), shape[0], real), None
    visible, bias = parted(mask)
    visible = visible.expand(*mask.shape[:2], queries, keys)
    found = visibility(visible, shape[0], real)
    return found, bias.expand(*mask.shape[:2], queries, keys) if bool(bias.count_nonzero()) else None


def parted(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Where a key is visible, bool, and the rest of what is added to scores: 0 where it hides a key."""
    visible = scores > HIDDEN
    return visible, torch.where(visible, scores, 0.0)


def visibility(visible: Tensor, batch: int, real: Tensor | None) -> Visibility:
    """The simplest rules that say the same as ``visible`` (batch or 1, head or 1, query, key) for all real queries."""
    if bool(visible.all()):
        return Visibility()
    queries, keys = visible.shape[-2:]
    counted = visible
    if queries == keys and real is not None and real.shape[-1] == keys:
        counted = visible & real[:, None, :, None].to(visible.device)
    seen = counted.any(-2).any(1)  # (batch or 1, key)
    valid = None if bool(seen.all()) else seen.expand(batch, -1)
    window = widest(counted) if queries == keys else None
    for causal, within in itertools.product((False, True), (None, window)) if queries == keys else ((False, None),):
        simple = Visibility(causal=causal, window=within, valid=valid)
        mask = simple.whole(keys, visible.device) if queries == keys else seen[:, None, None]
        if mask is None:
            continue  # it says that all is visible, which it is not
        own = torch.ones_like(seen) if queries != keys else seen  # a padded query counts for nothing
        if not bool(((mask != visible) & own[:, None, :, None]).any() if queries == keys else (mask != visible).any()):
            return simple
    return Visibility(dense=visible)


def widest(visible: Tensor) -> int:
    """The largest distance of a key from a query that sees it."""
    place = torch.arange(visible.shape[-1], device=visible.device)
    apart = (place - place[:, None]).abs()
    return int(apart[visible.flatten(0, 1).any(0)].max()) if bool(visible.any()) else 0


def with_offset(mask: Tensor | None, causal: bool, offset: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The mask of a kernel with ``offset`` added to the scores of ``shape``: float, of the kind of ``like``."""
    if mask is not None and mask.dtype != torch.bool:
        return mask + offset.to(mask.dtype)
    if mask is None:
        seen, _ = rules(None, shape, causal=causal, real=None, device=like.device)
        mask = seen.mask(slice(0, shape[2]), slice(0, shape[3]), like.device)
    found = as_mask(mask, offset, like.dtype)
    assert found is not None, "an offset was given"
    return found
