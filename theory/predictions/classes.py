"""Two classes, a non-linear readout, and the price of telling them: claims C5 and C6."""

import numpy as np
from scipy.special import ndtr

from theory.rows import Array
from theory.setting import centre_rows

# C5: a non-linear readout ---------------------------------------------------------------------------------------------


def neuron_sensitivity(inputs: Array, value: Array, own: Array, mixed: Array, offset: Array, weight: Array) -> Array:
    """(5.1)  g(x_i, x-bar) = W_V V^T (w * tanh'(U x_i + V W_V^T x-bar + b)), for the tanh head; (n, L, d)."""
    hidden = inputs @ own.T + (inputs.mean(1) @ value @ mixed.T)[:, None] + offset
    return (weight / np.cosh(hidden) ** 2) @ mixed @ value.T


def readout_derivative(direction: Array, sensitivity: Array, inputs: Array) -> Array:
    """(5.2)  D f[Delta] = (1/L^2) sum_ij Delta~_ij <g(x_i, x-bar), x_j>; one per sequence (n,)."""
    attended = np.einsum("ij,njd->nid", centre_rows(direction), inputs)
    return (sensitivity * attended).sum((1, 2)) / len(direction) ** 2


def bilinear_statistic(moments: Array, form: Array, value: Array) -> Array:
    """(5.3)  Gamma_ij = tr(B W_V^T) C_ij, for psi = <x, B z> and E[x_i x_j^T] = C_ij I."""
    return float((form * value).sum()) * moments


def class_gradient(direction: Array, first: Array, second: Array) -> float:
    """(5.4)  E D l[Delta] = (1/4L^2) sum_ij Delta~_ij (Gamma^0_ij - Gamma^1_ij), balanced classes, f -> 0."""
    return float((centre_rows(direction) * (first - second)).sum() / (4 * len(direction) ** 2))


def relu_statistic(autocorrelation: Array, own: Array, mixed: Array, weight: Array) -> Array:
    """(5.5)  Gamma_k = sum_r w_r (C_k <a_r, b_r> + (s/L) |b_r|^2) / sqrt(2 pi v_r), with
    v_r = C_0 |a_r|^2 + (s/L)(2 <a_r, b_r> + |b_r|^2),

    for psi = sum_r w_r relu(<a_r, x_i> + <V_r, z_i>) on stationary Gaussian data, by Stein's lemma.
    own: a_r (h, d); mixed: b_r = W_V V_r (h, d); weight: w (h,). Over the offset, (L,).
    """
    mean_power = autocorrelation.mean()  # s / L
    cross, square = (own * mixed).sum(1), (mixed**2).sum(1)
    variance = autocorrelation[0] * (own**2).sum(1) + mean_power * (2 * cross + square)
    covariance = autocorrelation[:, None] * cross + mean_power * square
    return (covariance / np.sqrt(2 * np.pi * variance)) @ weight


# C6: the price of detection -------------------------------------------------------------------------------------------


def shared_statistic(direction: Array, inputs: Array) -> Array:
    """(6.1)  T(x) = sum_ij Delta~_ij <x_i, x_j>: what both losses read; one per sequence (n,)."""
    return np.einsum("ij,nid,njd->n", centre_rows(direction), inputs, inputs, optimize=True)


def reconstruction_factor(length: int, dim: int, gain: float) -> float:
    """(6.2)  D R_x[Delta] = -(2c (1 + c/L) / (d L^2)) T(x), for a periodic Delta with kappa~_0 = 0."""
    return -2 * gain * (1 + gain / length) / (dim * length**2)


def statistic_moments(direction: Array, moments: Array, dim: int) -> Array:
    """(6.3)  E T = d tr(D C) and Var T = 2 d tr((D C)^2), with D the symmetric part of Delta~, on Gaussian data."""
    centred = centre_rows(direction)
    product = (centred + centred.T) / 2 @ moments
    return np.array([dim * np.trace(product), 2 * dim * np.trace(product @ product)])


def label_signal(first: Array, second: Array, length: int) -> Array:
    """(6.4)  mean h / (2 L^2) and variance (v + m^2) / (4 L^4) of the label loss's derivative per sequence.

    first, second: (E T, Var T) of class 0 and 1; m = (m_0 + m_1)/2, h = (m_0 - m_1)/2, v = (v_0 + v_1)/2.
    """
    (m, h), v = _mean_and_half_difference(first, second), (first[1] + second[1]) / 2
    return np.array([h / (2 * length**2), (v + m**2) / (4 * length**4)])


def reconstruction_signal(first: Array, second: Array, factor: float) -> Array:
    """(6.5)  mean F m and variance F^2 (v + h^2) of the reconstruction loss's, with F of (6.2)."""
    (m, h), v = _mean_and_half_difference(first, second), (first[1] + second[1]) / 2
    return np.array([factor * m, factor**2 * (v + h**2)])


def sample_size(signal: Array, significance: float) -> float:
    """(6.6)  n = (z sigma / mu)^2; signal: (mu, sigma^2)."""
    return float(significance**2 * signal[1] / signal[0] ** 2)


def price_ratio(first: Array, second: Array) -> float:
    """(6.7)  n_label / n_reconstruction = (m^2 / h^2) (v + m^2) / (v + h^2)."""
    (m, h), v = _mean_and_half_difference(first, second), (first[1] + second[1]) / 2
    return float((m / h) ** 2 * (v + m**2) / (v + h**2))


def detection_power(count: int, signal: Array, significance: float) -> float:
    """(6.8)  P(|mean of n| > z sigma / sqrt(n)) = Phi(sqrt(n) |mu| / sigma - z), up to the central limit."""
    return float(ndtr(np.sqrt(count / signal[1]) * abs(signal[0]) - significance))


def shuffled_score(first: Array, second: Array, count: int) -> float:
    """(6.9)  Standard score of the label gradient among shuffled labels = h sqrt(n) / sqrt(v + h^2)."""
    (_, h), v = _mean_and_half_difference(first, second), (first[1] + second[1]) / 2
    return float(h * np.sqrt(count / (v + h**2)))


def _mean_and_half_difference(first: Array, second: Array) -> tuple[float, float]:
    return float(first[0] + second[0]) / 2, float(first[0] - second[0]) / 2
