"""Training in score space: gradient flow by an ODE integrator, gradient descent, and Adam."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.integrate import solve_ivp
from torch import Tensor

from theory import measurements as measure
from theory.rows import Array


def integrate(
    velocity: Callable[[Array], Array], start: Array, times: Array, method: Literal["DOP853", "LSODA"] = "DOP853"
) -> Array:
    """The solution of y' = velocity(y), y(0) = start, at increasing times: (len(times), *start.shape)."""
    solution = solve_ivp(
        lambda _, flat: velocity(flat.reshape(start.shape)).ravel(),
        (0.0, float(times[-1])),
        start.ravel(),
        method=method,
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    assert solution.success, solution.message
    return solution.y.T.reshape(len(times), *start.shape)


def gradient_flow(loss: Callable[[Tensor], Tensor], start: Array, times: Array) -> Array:
    """S' = -dl/dS with the gradient by autograd, at all L^2 scores."""
    return integrate(lambda scores: -measure.gradient(loss, scores), start, times)


def descend(loss: Callable[[Tensor], Tensor], start: Array, rate: float, steps: int) -> Array:
    """Plain gradient descent."""
    scores = start
    for _ in range(steps):
        scores = scores - rate * measure.gradient(loss, scores)
    return scores


def descend_with_adam(loss: Callable[[Tensor], Tensor], start: Array, rate: float, steps: int) -> Array:
    """Adam (Kingma and Ba 2015, algorithm 1) with its usual constants; torch's would take a second to import."""
    scores, mean, square = start, np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        slope = measure.gradient(loss, scores)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        scores = scores - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return scores


def query_dependence(scores: Array) -> float:
    """Distance from K = {u_j + r_i}: the norm of what is left after centring rows and columns."""
    centred = scores - scores.mean(1, keepdims=True)
    return float(np.linalg.norm(centred - centred.mean(0)))
