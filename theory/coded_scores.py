"""Scores made from position codes: gradients on their parameters, and what of them is a function of the offset.

Scores are P M P^T with codes P (L, p), or P W_Q W_K^T P^T with W_Q and W_K (p, h) stacked as (2, p, h).
"""

import numpy as np
from torch import Tensor

from theory import measurements as measure
from theory.linear_readout import linear
from theory.rows import Array
from theory.setting import Setting, decaying, label_problem, periodic_direction, sigma_points

CORRELATION = 0.6


def data(setting: Setting, ratio: float = CORRELATION) -> Array:
    """Stationary sequences (sigma points) of autocorrelation r^k on the ring."""
    return sigma_points(periodic_direction(decaying(setting.length, ratio)), setting.dim)


def form_gradient(losses: measure.Losses, codes: Array) -> Array:
    """The gradient on M at M = 0 of losses of the scores P M P^T, by autograd; (p, p)."""
    basis, width = measure.tensor(codes), codes.shape[1]
    return measure.gradient(lambda form: losses(basis @ form @ basis.T), np.zeros((width, width)))


def code_gradient(inputs: Array, codes: Array, gain: float) -> Array:
    """dR/dM at M = 0, one position hidden; (p, p)."""
    return form_gradient(measure.reconstruction_losses(inputs, gain), codes)


def step(inputs: Array, codes: Array, gain: float) -> Array:
    """The first step of the scores, P (-dR/dM) P^T; (L, L)."""
    return -codes @ code_gradient(inputs, codes, gain) @ codes.T


def off_circulant(matrix: Array) -> float:
    """The share of a matrix's norm that does not depend on the offset alone."""
    return float(np.linalg.norm(matrix - periodic_direction(measure.by_offset(matrix))) / np.linalg.norm(matrix))


def label_losses(setting: Setting, inputs: Array) -> measure.Losses:
    """The label loss of a random linear head with random labels, which break the symmetry of the data."""
    problem, rng = label_problem(setting, setting.rng("C7 labels"), 2), setting.rng("C7 label")
    return measure.label_losses(linear(problem), inputs, (rng.permutation(len(inputs)) % 2).astype(float))


def factor_gradient(losses: measure.Losses, codes: Array, factors: Array) -> Array:
    """The gradient on (W_Q, W_K), stacked (2, p, h), of losses of the scores P W_Q W_K^T P^T, by autograd."""
    basis = measure.tensor(codes)

    def of_factors(stacked: Tensor) -> Tensor:
        return losses(basis @ stacked[0] @ stacked[1].T @ basis.T)

    return measure.gradient(of_factors, factors)


def factor_scores(codes: Array, factors: Array) -> Array:
    """P W_Q W_K^T P^T, (L, L)."""
    return codes @ factors[0] @ factors[1].T @ codes.T
