"""What masked reconstruction sees at uniform attention: claim C4."""

import numpy as np
from scipy.special import gammaln

from theory.rows import Array
from theory.setting import centre_rows

# C4: what reconstruction sees at uniform attention --------------------------------------------------------------------


def reconstruction_gradient(moments: Array, gain: float, seen: float = 1.0, both: float = 1.0) -> Array:
    """(4.1)  dR/dS_mj = (2c/L^2)(q_mj - (1/L) sum_j' q_mj'), for hidden positions drawn exchangeably, with
    q_mj = 1[j != m] ((c/L)(beta sum_{k != m, j} C_kj + alpha C_jj) - alpha C_mj).

    moments: C (L, L). seen: alpha, the chance that j is visible given that m is hidden; both: beta, that j and k are.
    One hidden position: alpha = beta = 1.
    """
    length = len(moments)
    diagonal = np.diag(moments)
    others = moments.sum(0)[None, :] - moments - diagonal[None, :]
    q = gain / length * (both * others + seen * diagonal[None, :]) - seen * moments
    np.fill_diagonal(q, 0)
    return 2 * gain / length**2 * centre_rows(q)


def visibility(length: int, ratio: float, *, per_mask: bool) -> Array:
    """(4.2)  (alpha, beta) for positions hidden independently with probability rho.

    Summed loss over its expected count rho L: alpha = 1 - rho, beta = (1 - rho)^2. Mean over the hidden positions of
    each non-empty mask (`per_mask`): alpha = E (L-K)/(L-1), beta = E (L-K)(L-K-1)/((L-1)(L-2)), with K ~
    Binomial(L, rho) given K > 0.
    """
    if not per_mask:
        return np.array([1 - ratio, (1 - ratio) ** 2])
    hidden = np.arange(1, length + 1)
    logs = gammaln(length + 1) - gammaln(hidden + 1) - gammaln(length - hidden + 1)
    chances = np.exp(logs + hidden * np.log(ratio) + (length - hidden) * np.log1p(-ratio)) / (1 - (1 - ratio) ** length)
    seen = (length - hidden) / (length - 1)
    return np.array([chances @ seen, chances @ (seen * (length - hidden - 1) / (length - 2))])


def proximity_derivative(
    kernel: Array, autocorrelation: Array, gain: float, seen: float = 1.0, both: float = 1.0
) -> float:
    """(4.3)  D R[kappa] = -(2c/L) [(alpha + beta c/L) sum_{k != 0} kappa~_k C_k
    - (c/L)(beta s + (alpha - beta) C_0) sum_{k != 0} kappa~_k], s = sum_k C_k, on stationary data.
    """
    length = len(kernel)
    centred = (kernel - kernel.mean())[1:]
    matched = (seen + both * gain / length) * (centred @ autocorrelation[1:])
    spent = gain / length * (both * autocorrelation.sum() + (seen - both) * autocorrelation[0]) * centred.sum()
    return float(-2 * gain / length * (matched - spent))


def first_step(moments: Array) -> Array:
    """(4.4)  lim_{c -> 0} -(L^2 / 2c) dR/dS = C with an empty diagonal, its rows centred: the data's covariance."""
    return centre_rows(moments - np.diag(np.diag(moments)))


def white_derivative(kernel: Array, power: float, gain: float) -> float:
    """(4.5)  D R[kappa] = -(2 c^2 / L^2) C_0 kappa~_0 on white data: only the hidden, empty slot attracts."""
    return float(-2 * gain**2 / len(kernel) ** 2 * power * (kernel[0] - kernel.mean()))


def reconstruction_dimension(length: int) -> int:
    """(4.6)  dim span {dR/dS over all data} = L (L + 1)/2 - 1, for every c > 0 and one hidden position."""
    return length * (length + 1) // 2 - 1
