"""Which positions are hidden from the model: boolean masks from a counter-based hash.

The hash has no state. The bit of a position depends only on (seed, sample, epoch, position), so it is the same on every
device, in eager and compiled code, and in whatever batch the sample happens to sit.
"""

import torch
from torch import Tensor

# Odd multipliers below 2**31 decorrelate the four counters; products of two 32-bit numbers fit in int64.
_SEED, _SAMPLE, _EPOCH, _POSITION = 0x2C1B3C6D, 0x27D4EB2F, 0x1B873593, 0x165667B1
_ROUNDS = (0x21F0AAAD, 0x735A2D97)
_32_BITS = 0xFFFFFFFF


def hash_uniform(seed: int, sample: Tensor, epoch: int | Tensor, position: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64, from broadcastable int64 counters.

    Two rounds of multiply and xorshift on 32 bits; all arithmetic is on int64, hence identical on CPU and GPU.
    """
    x = (sample * _SAMPLE + position * _POSITION + epoch * _EPOCH + seed % 2**31 * _SEED) & _32_BITS
    for multiplier in _ROUNDS:
        x = ((x ^ (x >> 16)) * multiplier) & _32_BITS
        x = x ^ (x >> 15)
    return x.double() / 2**32


def bernoulli_mask(
    ratio: float, *, seed: int, sample: Tensor, epoch: int | Tensor, length: int, valid: Tensor | None = None
) -> Tensor:
    """Hidden positions, independent with probability ``ratio``: (batch,) sample numbers -> (batch, length) bool.

    Positions that are not ``valid`` (padding) are never hidden.
    """
    position = torch.arange(length, device=sample.device)
    hidden = hash_uniform(seed, sample[:, None], epoch, position) < ratio
    return hidden if valid is None else hidden & valid
