"""The null of no proximity: the same scores with the key positions in random order.

Under it, which position a key stands at says nothing about which queries score it highly. One permutation is shared
by all sequences, so agreement between sequences is part of the null; where lengths differ, every sequence uses the
order that the permutation gives to its own real positions. A contrast of scores is linear in the keys
(``contrast_keys``), sum_j u_j . k_j, so each permutation costs O(length), and with unpadded sequences all of them
read their sums off one matrix, G_jm = sum over sequences of u_j . k_m.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class KeyPermutationNull:
    """Collects a contrast of every layer and head, summed over sequences, as it is and under permuted keys."""

    def __init__(
        self, *, layers: int, heads: int, length: int, permutations: int, matrix: bool, generator: np.random.Generator
    ) -> None:
        """``matrix``: keep G (layers * heads * length^2 numbers) where sequences are not padded."""
        self.permutations, self.length = permutations, length
        self.seed = int(generator.integers(2**62))
        self.observed = np.zeros((layers, heads))
        self.null = np.zeros((permutations, layers, heads))
        self.matrices: dict[int, Tensor] | None = {} if matrix else None

    def add(self, layer: int, u: Tensor, k: Tensor, valid: Tensor | None) -> None:
        """u, k: (batch, head, length, d_head) on one device; u is zero at padded positions and sums to zero."""
        k = k - k.mean(-2, keepdim=True)  # changes no sum, because u sums to zero, but keeps rounding small
        self.observed[layer] += (u * k).sum((0, 2, 3)).double().cpu().numpy()
        if self.matrices is not None and valid is None:
            # (head, length, batch * d_head) each: one matrix product per head.
            left, right = (t.permute(1, 2, 0, 3).flatten(2) for t in (u, k))
            product = left @ right.mT
            self.matrices[layer] = self.matrices[layer].add_(product) if layer in self.matrices else product
            return
        for r, order in enumerate(self._orders()):
            self.null[r, layer] += self._permuted(u, k, valid, order.to(k.device)).double().cpu().numpy()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Observed contrast (layer, head) and its null (permutation, layer, head)."""
        for layer, matrix in (self.matrices or {}).items():
            position = torch.arange(self.length, device=matrix.device)
            for r, order in enumerate(self._orders()):
                sums = matrix[:, position, order.to(matrix.device)].sum(-1)
                self.null[r, layer] += sums.double().cpu().numpy()
        self.matrices = None
        return self.observed, self.null

    def _orders(self) -> Iterator[Tensor]:
        """The same permutations at every call; they are not kept because there may be many of great length."""
        source = torch.Generator().manual_seed(self.seed)
        return (torch.randperm(self.length, generator=source) for _ in range(self.permutations))

    def _permuted(self, u: Tensor, k: Tensor, valid: Tensor | None, order: Tensor) -> Tensor:
        """(head,) sum over sequences and positions j of u_j . k_order(j)."""
        if valid is None:
            return torch.einsum("bhjd,bhjd->h", u, k[..., order, :])
        # The i-th real position takes the i-th real key in the shuffled order.
        sequence, place = valid.nonzero(as_tuple=True)
        rank = order.expand(len(valid), -1)
        source = rank[valid.gather(1, rank)]  # sequence by sequence like place, with as many entries for each
        return (u[sequence, :, place] * k[sequence, :, source]).sum((0, 2))
