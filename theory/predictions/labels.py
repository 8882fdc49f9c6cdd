"""What label supervision sees of attention scores, and what it never learns: claims C1, C2 and C3."""

import numpy as np

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
    """(3.3)  lim dist(S(t), K) / t = ||H G||, H = I - 11^T/L, for the flow S' = -G from a start in K (G 1 = 0)."""
    return float(np.linalg.norm(gradient - gradient.mean(0)))
