"""Powers of eigenvalues at all positions of long sequences, precise and without the exponential of each of them."""

import math

import torch
from torch import Tensor


def factors(exponent: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """a (..., n) and b (..., m) with exp(exponent l) = a_(l // m) b_(l % m) for l = 0 ... length - 1; n m >= length.

    exponent (...) complex128, of which about 2 sqrt(length) exponentials each are taken: a phase of many turns would
    have few digits left in float32. a and b have the type ``dtype``.
    """
    m = math.isqrt(length - 1) + 1
    step = torch.arange(m, device=exponent.device, dtype=torch.float64)
    coarse = torch.exp(exponent[..., None] * (m * step[: -(-length // m)]))
    return coarse.to(dtype), torch.exp(exponent[..., None] * step).to(dtype)


def real_powers(exponent: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """(..., 2 state, length) for ``times``: exp(exponent l), the real parts above the imaginary ones.

    exponent (..., state) complex128. Products of the factors by real matrices of rank 2 are faster than complex ones.
    """
    coarse, fine = factors(exponent, length, dtype)
    real, imaginary = coarse.real, coarse.imag
    left = torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -4)
    right = torch.stack([fine.real, fine.imag], -2)[..., None, :, :, :]
    return (left @ right).flatten(-2)[..., :length].flatten(-3, -2)


def stacked_parts(x: Tensor) -> Tensor:
    """(..., n, m) complex -> (..., 2 n, m): the real parts above the imaginary ones."""
    return torch.cat([x.real, x.imag], -2)


def times(x: Tensor, parts: Tensor) -> Tensor:
    """Re(x @ y) with y given by its stacked parts: one product of real matrices, half the work of a complex one."""
    return torch.cat([x.real, -x.imag], -1) @ parts
