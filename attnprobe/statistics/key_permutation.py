"""The null of scores that know no key positions: the same scores with the key positions in random order.

Under it, which position a key stands at says nothing about which queries score it highly. Models that have learnt
nothing break it as well: random W_Q and W_K map keys that look alike to like scores, and neighbours often do.

One permutation is shared by all sequences, so agreement between sequences is part of the null; where lengths differ,
every sequence uses the order that the permutation gives to its own real positions. A contrast of scores is linear in
the keys (``contrast_keys``), sum_j u_j . k_j, so each permutation costs O(length), and with unpadded sequences all of
them read their sums off one matrix, G_jm = sum over sequences of u_j . k_m.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class KeyPermutationNull:
    """Collects a contrast of every layer and head, summed over sequences, as it is and under permuted keys."""

    def __init__(self, length: int, permutations: int, *, matrix: bool, generator: np.random.Generator) -> None:
        """``matrix``: keep G (length^2 numbers per head) where sequences are not padded."""
        self.permutations, self.length = permutations, length
        self.seed = int(generator.integers(2**62))
        self.sums: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> (heads,) and (permutations, heads), on the device
        self.matrices: dict[int, Tensor] | None = {} if matrix else None

    def add(self, layer: int, u: Tensor, k: Tensor, valid: Tensor | None) -> None:
        """u, k: (batch, head, length, d_head) on one device; u is zero at padded positions and sums to zero."""
        k = k - k.mean(-2, keepdim=True)  # changes no sum, because u sums to zero, but keeps rounding small
        if layer not in self.sums:
            zeros = torch.zeros(1 + self.permutations, u.shape[1], dtype=torch.float64, device=u.device)
            self.sums[layer] = zeros[0], zeros[1:]
        observed, null = self.sums[layer]
        observed += (u * k).sum((0, 2, 3))
        if self.matrices is not None and valid is None:
            # (head, length, batch * d_head) each: one matrix product per head.
            left, right = (t.permute(1, 2, 0, 3).flatten(2) for t in (u, k))
            product = left @ right.mT
            self.matrices[layer] = self.matrices[layer].add_(product) if layer in self.matrices else product
            return
        places = None if valid is None else Places(valid)
        for r, order in enumerate(self._orders()):
            null[r] += self._permuted(u, k, places, order.to(k.device, non_blocking=True))

    @torch.inference_mode()  # as it may have been when the sums were made
    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Observed contrast (head,) and its null (permutation, head), the heads of one layer after those before it."""
        for layer, matrix in (self.matrices or {}).items():
            position = torch.arange(self.length, device=matrix.device)
            for r, order in enumerate(self._orders()):
                self.sums[layer][1][r] += matrix[:, position, order.to(matrix.device, non_blocking=True)].sum(-1)
        self.matrices = None
        sums = [self.sums[layer] for layer in sorted(self.sums)]
        observed, null = (
            np.concatenate([part.cpu().numpy() for part in parts], -1) for parts in zip(*sums, strict=True)
        )
        return observed, null

    def _orders(self) -> Iterator[Tensor]:
        """The same permutations at every call; they are not kept because there may be many of great length."""
        source = torch.Generator().manual_seed(self.seed)
        return (torch.randperm(self.length, generator=source) for _ in range(self.permutations))

    def _permuted(self, u: Tensor, k: Tensor, places: "Places | None", order: Tensor) -> Tensor:
        """(head,) sum over sequences and positions j of u_j . k_order(j)."""
        if places is None:
            return torch.einsum("bhjd,bhjd->h", u, k[..., order, :])
        source = places.sources(order)
        return (u[places.sequence, :, places.position] * k[places.sequence, :, source]).sum((0, 2))


class Places:
    """The real positions of all sequences, looked up once: to ask the device for them makes it wait."""

    def __init__(self, valid: Tensor) -> None:
        self.valid = valid
        self.sequence, self.position = valid.nonzero(as_tuple=True)
        self.number = (valid.cumsum(1) - 1)[self.sequence, self.position]  # how many real ones stand before each

    def sources(self, order: Tensor) -> Tensor:
        """(positions,): the i-th real position of a sequence takes its i-th real key in the shuffled ``order``."""
        real = self.valid[:, order]
        slot = torch.where(real, real.cumsum(1) - 1, real.shape[1])  # one more column takes what is not real
        shuffled = order.new_empty(len(real), real.shape[1] + 1)
        shuffled.scatter_(1, slot, order.expand(len(real), -1))
        return shuffled[self.sequence, self.number]
