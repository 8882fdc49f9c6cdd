"""One function per displayed equation of README.md, written in numpy, none by differentiation.

Checks call these through the module (`predictions.name(...)`), so that a test can alter one and see a row fail.
Notation: L length, d dim, n sequences; Delta a direction (L, L) and Delta~ its row-centred form; kappa a kernel and C_k
an autocorrelation over the offset k (vectors of length L); c the gain of the reconstruction head.
"""

import numpy as np
from scipy.special import gammaln, ndtr

from theory.rows import Array
from theory.setting import centre_rows

# C1: what label supervision sees at uniform attention -----------------------------------------------------------------


def effective_dimension(length: int) -> int:
    """(1.1)  dim {Delta~} = L (L - 1)."""
    return length * (length - 1)


def visible_dimension(length: int) -> int:
    """(1.2)  dim of what labels see = L - 1."""
    return length - 1


def blind_dimension(length: int) -> int:
    """(1.3)  dim of what labels do not see = (L - 1)^2."""
    return (length - 1) ** 2


def visible_fraction(length: int) -> float:
    """(1.4)  (1.2) / (1.1) = 1 / L."""
    return 1 / length


def label_slope(outputs: Array, labels: Array, loss: str) -> Array:
    """(1.5)  l'(f, y) = sigmoid(f) - y (logistic), f - y (squared), sin(f - y) (periodic); per sequence (n,)."""
    if loss == "logistic":
        return 1 / (1 + np.exp(-outputs)) - labels
    return outputs - labels if loss == "squared" else np.sin(outputs - labels)


def label_derivative(direction: Array, projected: Array) -> Array:
    """(1.6)  D f[Delta] = (1/L^2) sum_j c~_j p_j, with c~_j the column sums of Delta~ and p_j = <x_j, W_V w>.

    projected: p, (n, L). Returns one derivative per sequence, (n,).
    """
    return projected @ centre_rows(direction).sum(0) / len(direction) ** 2


def witness_derivative(direction: Array) -> float:
    """(1.7)  D f[Delta] = ||c~||^2 / L^2 on the sequence with <x_j, W_V w> = c~_j: proves the `only if`."""
    return float((centre_rows(direction).sum(0) ** 2).sum() / len(direction) ** 2)


def visible_share(direction: Array) -> float:
    """(1.8)  ||c~||^2 / (L ||Delta~||^2): the share of the energy of Delta~ that label supervision sees."""
    centred = centre_rows(direction)
    return float((centred.sum(0) ** 2).sum() / (len(direction) * (centred**2).sum()))


def visible_share_limit(tau: float) -> float:
    """(1.9)  lim L^2 share = 2 q^2 / ((1 - q)^2 (1 + q^2)), q = exp(-1/tau), for the kernel exp(-|i - j|/tau)."""
    q = np.exp(-1 / tau)
    return float(2 * q**2 / ((1 - q) ** 2 * (1 + q**2)))


# C2: along a ray ------------------------------------------------------------------------------------------------------


def doubly_stochastic_output(projected: Array, bias: float) -> Array:
    """(2.1)  f = (1/L) sum_j p_j + b for every doubly stochastic pattern; p of shape (n, L), result (n,)."""
    return projected.mean(1) + bias


def label_curvature(direction: Array, projected: Array) -> Array:
    """(2.2)  D^2 f[Delta, Delta] = (1/L^2) sum_j (e_j - mean e) p_j, with e_j = sum_i Delta~_ij^2; (n,)."""
    energy = (centre_rows(direction) ** 2).sum(0)
    return projected @ (energy - energy.mean()) / len(direction) ** 2


# C3: attention that does not depend on the query stays so -------------------------------------------------------------


def query_free_gradient(profile: Array, projected: Array, slopes: Array) -> Array:
    """(3.1)  dl/dS_ij = g_j = (1/L) a_j l' (p_j - sum_k a_k p_k) for every i, with a = softmax(u), mean over sequences.

    profile: u (L,) of the scores S_ij = u_j + r_i; projected: p (n, L); slopes: l' (n,). Returns g, (L,).
    """
    weights = np.exp(profile - profile.max())
    weights /= weights.sum()
    centred = projected - (projected @ weights)[:, None]
    return weights * (slopes @ centred) / (len(slopes) * len(profile))


def codes_gradient(codes: Array, row: Array) -> Array:
    """(3.2)  dl/dM = (P^T 1)(g^T P) for scores P M P^T at M = 0: rank one, zero for centred codes.

    codes: P (L, p); row: g (L,), of (3.1) at u = 0.
    """
    return codes.sum(0)[:, None] * (row @ codes)


def departure_rate(gradient: Array) -> float:
    """(3.3)  lim dist(S(t), K) / t = ||H G H||, H = I - 11^T/L, for the flow S' = -G from a start in K."""
    centred = centre_rows(gradient)
    return float(np.linalg.norm(centred - centred.mean(0)))


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
