"""The positions of sequences in another order, the same for all of them."""

import torch
from torch import Tensor


def reordered_places(order: Tensor, valid: Tensor | None, *, sequences: int) -> Tensor:
    """(sequence, length) where every position takes what it gets from, as ``Subject.reordered`` says.

    order: (length,); valid: (sequence, length) bool, False at what stays where it is; None = everything moves.
    """
    source = order.expand(sequences, -1)
    if valid is not None:
        # A stable sort by "is padding" keeps the real positions in the order in which they are named.
        source = source.gather(1, (~valid[:, order]).long().argsort(dim=1, stable=True))
        # Slots are the real positions first; padding stays where it is.
        slots = (~valid).long().argsort(dim=1, stable=True)
        source = torch.empty_like(source).scatter_(1, slots, torch.where(valid.gather(1, slots), source, slots))
    return source
