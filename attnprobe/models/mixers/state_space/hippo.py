"""The LegS matrices: a state that holds the Legendre coefficients of all the past (Gu et al. 2020, HiPPO)."""

import functools

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


def legs(states: int) -> tuple[np.ndarray, np.ndarray]:
    """A (states, states) and B (states,) of x' = A x + B u, float64 (Gu et al. 2022, S4, equation 2)."""
    n = np.arange(states)
    root = np.sqrt(2 * n + 1.0)
    return -np.tril(np.outer(root, root), -1) - np.diag(n + 1.0), root


@functools.lru_cache(maxsize=2)
def diagonal_plus_low_rank(states: int) -> tuple[Complex, Complex, Complex]:
    """eigenvalues, P, B (states / 2 each, complex128): A = V (diag(eigenvalues) - P P^*) V^* with V unitary.

    A + P P^T with P_n = sqrt(n + 1/2) is -1/2 plus a skew-symmetric matrix, so its eigenvalues come in conjugate pairs;
    of each pair the one with a negative imaginary part is kept (S4, theorem 1 and appendix C).
    """
    a, b = legs(states)
    p = np.sqrt(np.arange(states) + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(states)
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    kept = np.argsort(imaginary)[: states // 2]
    vectors = vectors[:, kept]
    return -0.5 + 1j * imaginary[kept], vectors.conj().T @ p, vectors.conj().T @ b
