"""The objects of the theory: settings, directions in score space, kernels, data models, position codes.

Axes: `L` = length (query i, then key j), `d` = dim, `n` = number of sequences. Inputs have the shape (n, L, d); scores,
patterns and directions (L, L); a kernel or an autocorrelation is a vector over the offset k = (j - i) mod L.
"""

import math
import operator
import zlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from theory.rows import Array

MIN_LENGTH, MAX_LENGTH = 3, 512
MAX_DIM = 64


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one verification runs at.

    length: L, from 3 to 512. dim: d, from 1 to 64. seed: a non-negative integer below 2^32.
    gain: the scalar c of the reconstruction head, 0 < c <= 1000.
    draws: Monte-Carlo sample size, at least 4000: below, some controls of claim C6 could not tell.

    Raises ValueError that names the argument.
    """

    length: int = 64
    dim: int = 5
    seed: int = 0
    gain: float = 0.7
    draws: int = 20_000

    def __post_init__(self) -> None:
        _check_integer("length", self.length, MIN_LENGTH, MAX_LENGTH)
        _check_integer("dim", self.dim, 1, MAX_DIM)
        _check_integer("seed", self.seed, 0, 2**32 - 1)
        _check_integer("draws", self.draws, 4000, 10**7)
        if isinstance(self.gain, bool) or not isinstance(self.gain, int | float) or not 0 < self.gain <= 1000:
            raise ValueError(f"gain = {self.gain!r}: expected a number above 0 and at most 1000")

    def rng(self, stream: str) -> np.random.Generator:
        """A generator that depends on the seed and the name of the stream only, so claims can be run alone."""
        return np.random.default_rng([self.seed, zlib.crc32(stream.encode())])

    def within(self, shortest: int, longest: int, widest: int = MAX_DIM) -> Self:
        """The same setting with its length brought into [shortest, longest] and its dim to `widest` at most.

        For checks whose cost explodes; their rows say which size they used.
        """
        return replace(self, length=min(max(self.length, shortest), longest), dim=min(self.dim, widest))

    @property
    def size(self) -> str:
        return f"L = {self.length}, d = {self.dim}"


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name} = {value!r}: expected an integer from {low} to {high}")


# Directions in score space -------------------------------------------------------------------------------------------


def centre_rows(direction: Array) -> Array:
    """Delta~ = Delta (I - 11^T/L): the part of a direction that the softmax can see."""
    return direction - direction.mean(axis=1, keepdims=True)


def periodic_direction(kernel: Array) -> Array:
    """Delta_ij = kappa((j - i) mod L), a circulant matrix; (L,) -> (L, L)."""
    offsets = np.arange(len(kernel))
    return kernel[(offsets[None, :] - offsets[:, None]) % len(kernel)]


def toeplitz_direction(length: int, tau: float) -> Array:
    """Delta_ij = exp(-|i - j| / tau): proximity on a line, with edges."""
    positions = np.arange(length)
    return np.exp(-np.abs(positions[:, None] - positions[None, :]) / tau)


def key_direction(profile: Array) -> Array:
    """Delta_ij = u_j: every query prefers the same keys."""
    return np.tile(profile, (len(profile), 1))


def blind_direction(length: int, rng: np.random.Generator) -> Array:
    """A random direction whose row-centred form has vanishing column sums, scaled to entries of size 1."""
    direction = centre_rows(rng.standard_normal((length, length)))
    direction -= direction.mean(axis=0)
    return direction * length / np.linalg.norm(direction)


# Kernels and autocorrelations over the offset ------------------------------------------------------------------------


def proximity_kernel(length: int, tau: float = 1.5) -> Array:
    """kappa_k = exp(-dist(k) / tau), with dist the distance on the ring of `length` positions."""
    offsets = np.arange(length)
    return np.exp(-np.minimum(offsets, length - offsets) / tau)


def contrast_kernel(length: int, tau: float = 1.5) -> Array:
    """The proximity kernel with kappa_0 replaced so that the centred kernel vanishes at offset 0.

    It compares near with far neighbours and leaves a position's own slot alone. At L = 3 it is zero.
    """
    kernel = proximity_kernel(length, tau)
    kernel[0] = kernel[1:].mean()
    return kernel


def lag_one(length: int, correlation: float) -> Array:
    """Autocorrelation C_0 = 1, C_1 = C_{-1} = correlation; positive definite for |correlation| < 1/2."""
    autocorrelation = np.zeros(length)
    autocorrelation[0] = 1.0
    autocorrelation[[1, -1]] = correlation
    return autocorrelation


def decaying(length: int, ratio: float) -> Array:
    """Autocorrelation of a first-order autoregression on the ring, (r^k + r^(L-k)) / (1 + r^L), for |r| < 1."""
    offsets = np.arange(length)
    return (float(ratio) ** offsets + float(ratio) ** (length - offsets)) / (1 + float(ratio) ** length)


# Data models ---------------------------------------------------------------------------------------------------------


def square_root(moments: Array) -> Array:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(moments)
    assert values.min() > -1e-10 * max(values.max(), 1.0), "not a second-moment matrix"
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def gaussian_sequences(moments: Array, dim: int, count: int, rng: np.random.Generator) -> Array:
    """Zero-mean Gaussian sequences with E[x_i x_j^T] = C_ij I: independent channels; (L, L) -> (count, L, d)."""
    return np.einsum("ij,njd->nid", square_root(moments), rng.standard_normal((count, len(moments), dim)))


def sigma_points(moments: Array, dim: int) -> Array:
    """A finite data set of 2Ld sequences with zero mean and E[x_i x_j^T] = C_ij I, without sampling error."""
    length = len(moments)
    points = np.einsum("is,rd->srid", square_root(moments) * np.sqrt(length * dim), np.eye(dim))
    points = points.reshape(length * dim, length, dim)
    return np.concatenate([points, -points])


def cubature(moments: Array, dim: int) -> tuple[Array, Array]:
    """Sequences (n, L, d) and weights (n,) with every moment up to the fifth of Gaussian sequences, n = 2 (L d)^2 + 1.

    Stroud's rule of degree 5: the origin, points on the axes and points on the diagonals of every pair of axes. Weights
    on the axes are negative beyond four of them. Raises AssertionError unless `moments` is positive semi-definite.
    """
    length, size = len(moments), len(moments) * dim
    axes = np.eye(size)
    first, second = np.triu_indices(size, 1)
    pairs = np.concatenate([axes[first] + axes[second], axes[first] - axes[second]])
    points = [np.zeros((1, size)), math.sqrt(size + 2) * axes, math.sqrt((size + 2) / 2) * pairs]
    weights = [2 / (size + 2), (4 - size) / (2 * (size + 2) ** 2), 1 / (size + 2) ** 2]
    nodes = np.concatenate([points[0], points[1], -points[1], points[2], -points[2]])
    counts = [1, 2 * size, 2 * len(pairs)]
    sequences = np.einsum("ij,njd->nid", square_root(moments), nodes.reshape(-1, length, dim))
    return sequences, np.repeat(weights, counts)


def sphere(count: int) -> Array:
    """Points spread evenly over the unit sphere, (count, 3): equal heights, turned by the golden angle."""
    height = (2 * np.arange(count) + 1) / count - 1
    angle, radius = np.pi * (1 + math.sqrt(5)) * np.arange(count), np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def second_moments(inputs: Array) -> Array:
    """C_ij = E<x_i, x_j> / d over the sequences of a data set; (n, L, d) -> (L, L)."""
    count, _, dim = inputs.shape
    return np.einsum("nid,njd->ij", inputs, inputs) / (count * dim)


def position_codes(length: int, pairs: int, *, centred: bool) -> Array:
    """Sinusoidal position codes, (L, 2 pairs): over full periods their columns sum to zero, else they do not."""
    frequencies = np.arange(1, pairs + 1) if centred else np.arange(1, pairs + 1) / (pairs + np.pi)
    phases = 2 * np.pi * np.arange(length)[:, None] * frequencies / length
    return np.concatenate([np.sin(phases), np.cos(phases)], axis=1)


# A label problem -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LabelProblem:
    """A data set with binary labels and a linear head, all drawn at random: what claims about `any` data are tried on.

    inputs (n, L, d), labels (n,) in {0, 1}, value W_V (d, d), weight w (d,).
    """

    inputs: Array
    labels: Array
    value: Array
    weight: Array

    @property
    def projected(self) -> Array:
        """p_j = <x_j, W_V w>, (n, L)."""
        return self.inputs @ self.value @ self.weight


def label_problem(setting: Setting, rng: np.random.Generator, count: int = 16) -> LabelProblem:
    """Tokens with a mean of their own at every position; the first token's projection decides the label."""
    shape = (setting.length, setting.dim)
    value = rng.standard_normal((setting.dim, setting.dim)) / np.sqrt(setting.dim)
    weight = rng.standard_normal(setting.dim)
    weight /= np.linalg.norm(value @ weight)
    inputs = rng.standard_normal(shape) / 2 + rng.standard_normal((count, *shape))
    first = inputs[:, 0] @ value @ weight
    return LabelProblem(inputs=inputs, labels=(first > np.median(first)).astype(float), value=value, weight=weight)
