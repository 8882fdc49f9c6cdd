"""What reconstruction does to scores that are made from position codes: claim C7.

Codes are sinusoids over full periods, `position_codes(L, n, centred=True)`: for the frequencies f = 1 .. n < L/2 a sine
and a cosine. The spectrum of an autocorrelation is C^(f) = sum_k C_k cos(2 pi f k / L).
"""

import math

import numpy as np

from theory.predictions.reconstruction import reconstruction_gradient
from theory.rows import Array


def code_weights(autocorrelation: Array, pairs: int, gain: float, seen: float = 1.0, both: float = 1.0) -> Array:
    """(7.1)  w_f = (c/L) [(alpha + beta c/L)(C^(f) - C_0) + (c/L)(beta s + (alpha - beta) C_0)] on stationary data.

    Then -dR/dM = diag(w), every w_f twice (for its sine and its cosine). Returns w over f = 1 .. pairs.
    """
    length, power = len(autocorrelation), autocorrelation[0]
    angles = 2 * np.pi * np.outer(np.arange(1, pairs + 1), np.arange(length)) / length
    spectrum = np.cos(angles) @ autocorrelation
    slot = both * autocorrelation.sum() + (seen - both) * power
    return gain / length * ((seen + both * gain / length) * (spectrum - power) + gain / length * slot)


def code_profile(weights: Array, length: int) -> Array:
    """(7.2)  sigma_k = sum_f w_f cos(2 pi f k / L): scores P diag(w) P^T by offset k, (L,)."""
    angles = 2 * np.pi * np.outer(np.arange(length), np.arange(1, len(weights) + 1)) / length
    return np.cos(angles) @ weights


def falling_range(length: int, highest: int) -> int:
    """(7.3)  K = ceil((L - n) / 2n): sigma falls strictly over the offsets 0 .. K if all w_f > 0.

    highest: n, the highest frequency.
    """
    return math.ceil((length - highest) / (2 * highest))


def near_drop(autocorrelation: Array, gain: float) -> float:
    """(7.4)  sigma_1 - sigma_2 = (c/2)(1 + c/L)(C_1 - C_2), for codes of all frequencies (L odd), one position hidden.

    Beyond its own slot a query's scores fall as the autocorrelation does.
    """
    length = len(autocorrelation)
    return float(gain / 2 * (1 + gain / length) * (autocorrelation[1] - autocorrelation[2]))


def random_codes_step(moments: Array, width: int, gain: float) -> Array:
    """(7.5)  E[P P^T (-G) P P^T] = -(1 + 1/p) G - (tr G / p) I over codes P (L, p) of entries N(0, 1/p); (L, L).

    moments: C of stationary data, with G symmetric; G = dR/dS of (4.1), one position hidden.
    """
    gradient = reconstruction_gradient(moments, gain)
    return -(1 + 1 / width) * gradient - np.trace(gradient) / width * np.eye(len(moments))


def factor_growth(weights: Array, heads: int, scale: float, time: float) -> Array:
    """(7.6)  h sigma^2 sinh(2 w_f t): the weights of E[S(t)] = P diag(...) P^T for W_Q, W_K (p, h) of entries
    N(0, sigma^2) with sigma -> 0, after a time t of gradient flow.
    """
    return heads * scale**2 * np.sinh(2 * weights * time)
