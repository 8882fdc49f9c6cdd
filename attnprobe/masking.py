"""Which positions are hidden from the model, and which numbers dropout keeps: masks from a counter-based hash.

The hash has no state. A bit depends only on its counters (seed, sample, epoch, position, ...), so it is the same on
every device, in eager and compiled code, and in whatever batch the sample happens to sit.
"""

import torch
from torch import Tensor

# Odd multipliers below 2**31 decorrelate the four counters; products of two 32-bit numbers fit in int64.
_SEED, _SAMPLE, _EPOCH, _POSITION = 0x2C1B3C6D, 0x27D4EB2F, 0x1B873593, 0x165667B1
_ROUNDS = (0x21F0AAAD, 0x735A2D97)
_COUNTER = 0x9E3779B  # of every counter of ``keep_mask``, odd as well
_32_BITS = 0xFFFFFFFF


def hash_uniform(seed: int, sample: Tensor, epoch: int | Tensor, position: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64, from broadcastable int64 counters.

    Two rounds of multiply and xorshift on 32 bits; all arithmetic is on int64, hence identical on CPU and GPU.
    """
    x = (sample * _SAMPLE + position * _POSITION + epoch * _EPOCH + seed % 2**31 * _SEED) & _32_BITS
    return _mix(x).double() / 2**32


def _mix(x: Tensor) -> Tensor:
    """Whole numbers below 2^32 -> the same, every bit of which depends on all bits."""
    for multiplier in _ROUNDS:
        x = ((x ^ (x >> 16)) * multiplier) & _32_BITS
        x = x ^ (x >> 15)
    return x


def bernoulli_mask(
    ratio: float, *, seed: int, sample: Tensor, epoch: int | Tensor, length: int, valid: Tensor | None = None
) -> Tensor:
    """Hidden positions, independent with probability ``ratio``: (batch,) sample numbers -> (batch, length) bool.

    Positions that are not ``valid`` (padding) are never hidden.
    """
    position = torch.arange(length, device=sample.device)
    hidden = hash_uniform(seed, sample[:, None], epoch, position) < ratio
    return hidden if valid is None else hidden & valid


def span_mask(
    ratio: float | Tensor,
    span: int,
    *,
    seed: int | Tensor,
    sample: Tensor,
    epoch: int | Tensor,
    length: int,
    valid: Tensor | None = None,
) -> Tensor:
    """Hidden spans of ``span`` neighbours that do not overlap: (batch,) sample numbers -> (batch, length) bool.

    Of n real positions (all, or the ``valid`` ones, which come first) as many spans are hidden as fit into the share
    ``ratio``, floor(n * ratio / span) of them; every arrangement is equally likely. To draw one, each span is thought
    of as a single item among the positions that stay visible, and so many items are chosen.
    """
    position = torch.arange(length, device=sample.device)
    real = torch.full_like(sample, length) if valid is None else valid.sum(1)
    real = real[:, None]  # (batch, 1)
    spans = (real.double() * ratio / span + 1e-3).floor().long()  # the ratio may be a rounded number
    drawn = hash_uniform(seed, sample[:, None], epoch, position)  # pyright: ignore[reportArgumentType]
    drawn = drawn.masked_fill(position >= real - spans * (span - 1), torch.inf)  # beyond the last item
    chosen = drawn.argsort(dim=1, stable=True).argsort(dim=1) < spans
    first = position + (chosen.long().cumsum(1) - 1) * (span - 1)  # where the chosen item stands once spans are long
    edges = torch.zeros(len(sample), length + span, dtype=torch.long, device=sample.device)
    first = first.clamp(0, length - 1)  # of those not chosen, which add nothing
    edges.scatter_add_(1, first, chosen.long())
    edges.scatter_add_(1, first + span, -chosen.long())
    return edges.cumsum(1)[:, :length] > 0


def keep_mask(rate: float, *counters: int | Tensor) -> Tensor:
    """True with probability 1 - ``rate``, from broadcastable int64 counters; those with the most axes come last.

    The counters enter one after the other, so only the last of them costs as much as the mask is large.
    """
    device = next(counter.device for counter in counters if isinstance(counter, Tensor))
    x = torch.zeros((), dtype=torch.int64, device=device)
    for counter in counters:
        x = _mix((x + (counter * _COUNTER & _32_BITS)) & _32_BITS)
    return x >= int(rate * 2**32)
