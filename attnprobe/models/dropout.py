"""Dropout whose masks depend on what is trained, not on what was drawn before: counters instead of a generator.

What a number's fate depends on is (seed, epoch, sample, site in the model, place in the sequence) alone. So a resumed
run, another order of the batches, trimmed padding and an ensemble's member all drop what the plain run drops.
"""

import dataclasses

import torch
from torch import Tensor

from attnprobe.masking import keep_mask

_KIND = 0x0D20  # keeps these masks apart from any other use of ``keep_mask``


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
    """The counters of one training batch. A model that is given none drops nothing."""

    seed: int | Tensor  # one number, or (batch, 1) in an ensemble
    epoch: int | Tensor  # the same
    sample: Tensor  # (batch,) int64

    def features(self, x: Tensor, rate: float, site: int, at: Tensor | None = None) -> Tensor:
        """Drop numbers of (batch, length, width); at: (batch, length) positions if they are not 0, 1, 2, ..."""
        if rate == 0:
            return x
        position = torch.arange(x.shape[1], device=x.device) if at is None else at
        channel = torch.arange(x.shape[2], device=x.device)
        return self._drop(x, rate, site, position[..., None], channel)

    def pattern(self, x: Tensor, rate: float, site: int, at: Tensor | None = None) -> Tensor:
        """Drop attention weights (batch, head, query, key); at: (batch, query) positions of the queries."""
        head = torch.arange(x.shape[1], device=x.device)[:, None, None]
        query = torch.arange(x.shape[2], device=x.device) if at is None else at[:, None]
        key = torch.arange(x.shape[3], device=x.device)
        return self._drop(x, rate, site, head, query[..., None], key)

    def _drop(self, x: Tensor, rate: float, site: int, *places: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 1))
        stream = [c.reshape(shape) if isinstance(c, Tensor) else c for c in (self.seed, self.epoch, self.sample)]
        keep = keep_mask(rate, _KIND, *stream, site, *places)
        return x.masked_fill(~keep, 0.0) / (1 - rate)


def attention_site(layer: int) -> int:
    """Where dropout acts: 0 after the embedding, then of each layer its weights, its mixer and its MLP."""
    return 1 + 3 * layer
