"""What is measured: attention and its heads in float64, differentiated by automatic differentiation.

Nothing here uses a formula of `theory.predictions`. Scores enter as arrays (L, L); results leave as arrays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from theory.rows import Array

Loss = Literal["logistic", "squared", "periodic"]
Pooling = Literal["mean", "max", "last"]


def tensor(array: Array) -> Tensor:
    """A float64 copy as a leaf of its own."""
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64)


# Label heads ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """f = <w, pool_i z_i> + b with Z = A X W_V. value: W_V (d, d); weight: w (d,); bias: b."""

    value: Array
    weight: Array
    bias: float = 0.0
    pooling: Pooling = "mean"

    def __call__(self, scores: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (n,) for scores (L, L) and inputs (n, L, d)."""
        tokens = torch.softmax(scores, dim=-1) @ inputs @ tensor(self.value)
        pooled = {"mean": tokens.mean(1), "max": tokens.amax(1), "last": tokens[:, -1]}[self.pooling]
        return pooled @ tensor(self.weight) + self.bias


@dataclass(frozen=True, kw_only=True)
class BilinearHead:
    """f = scale / L sum_i <x_i, B z_i> + b: the simplest readout in which a token meets what it attends to."""

    value: Array
    form: Array
    scale: float = 1.0
    bias: float = 0.0

    def __call__(self, scores: Tensor, inputs: Tensor) -> Tensor:
        tokens = torch.softmax(scores, dim=-1) @ inputs @ tensor(self.value)
        return self.scale * (inputs * (tokens @ tensor(self.form).T)).sum(-1).mean(1) + self.bias


@dataclass(frozen=True, kw_only=True)
class NeuronHead:
    """f = scale / L sum_i <w, act(U x_i + V z_i + b)>: one hidden layer per token, then mean pooling.

    own: U (h, d), zero for a head without the residual stream; mixed: V (h, d); offset: b (h,); weight: w (h,).
    """

    value: Array
    own: Array
    mixed: Array
    offset: Array
    weight: Array
    scale: float = 1.0
    activation: Literal["tanh", "relu"] = "tanh"

    def __call__(self, scores: Tensor, inputs: Tensor) -> Tensor:
        return self.read(torch.softmax(scores, dim=-1), inputs)

    def read(self, pattern: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (n,) for a pattern A (L, L)."""
        tokens = pattern @ inputs @ tensor(self.value)
        hidden = inputs @ tensor(self.own).T + tokens @ tensor(self.mixed).T + tensor(self.offset)
        return self.scale * (getattr(torch, self.activation)(hidden) @ tensor(self.weight)).mean(1)


Head = Callable[[Tensor, Tensor], Tensor]
Losses = Callable[[Tensor], Tensor]  # the scores (L, L) to one number per sequence (n,)


def losses(outputs: Tensor, labels: Tensor, kind: Loss) -> Tensor:
    """l(f, y) per sequence: logistic for y in {0, 1}, squared (f - y)^2 / 2, or the bounded 1 - cos(f - y)."""
    if kind == "logistic":
        return torch.nn.functional.softplus(outputs) - labels * outputs
    return (outputs - labels) ** 2 / 2 if kind == "squared" else 1 - torch.cos(outputs - labels)


def label_losses(head: Head, inputs: Array, labels: Array, kind: Loss = "logistic") -> Callable[[Tensor], Tensor]:
    """The label losses (n,) of a data set as a function of the scores."""
    x, y = tensor(inputs), tensor(labels)
    return lambda scores: losses(head(scores, x), y, kind)


# Reconstruction heads ------------------------------------------------------------------------------------------------


def reconstruction_losses(inputs: Array, gain: float) -> Callable[[Tensor], Tensor]:
    """||x^_m - x_m||^2 / d with only position m hidden, averaged over m; (n,) as a function of the scores."""
    x = tensor(inputs)
    _, length, dim = x.shape
    hidden = torch.eye(length, dtype=torch.bool)

    def evaluate(scores: Tensor) -> Tensor:
        pattern = torch.softmax(scores, dim=-1)
        visible = torch.where(hidden[:, None, :, None], 0.0, x)  # (hidden position, n, L, d)
        restored = gain * torch.einsum("mj,mnjd->nmd", pattern, visible)
        return ((restored - x) ** 2).sum((1, 2)) / (length * dim)

    return evaluate


def masked_losses(inputs: Array, hidden: npt.NDArray[np.bool_], gain: float) -> Callable[[Tensor], Tensor]:
    """Summed over hidden positions ||x^_m - x_m||^2 / d; (n,) as a function of the scores.

    inputs: (n, L, d); hidden: boolean (n, L), one mask per sequence.
    """
    x, mask = tensor(inputs), torch.as_tensor(hidden)[:, :, None]

    def evaluate(scores: Tensor) -> Tensor:
        restored = gain * (torch.softmax(scores, dim=-1) @ torch.where(mask, 0.0, x))
        return torch.where(mask, (restored - x) ** 2, 0.0).sum((1, 2)) / x.shape[2]

    return evaluate


def all_masks(length: int) -> npt.NDArray[np.bool_]:
    """Every non-empty set of hidden positions: boolean (2^L - 1, L)."""
    return (np.arange(1, 2**length)[:, None] >> np.arange(length) & 1).astype(bool)


def losses_under_all_masks(inputs: Array, ratio: float, gain: float, *, per_mask: bool) -> Losses:
    """Masked losses of every sequence under every mask, weighted so that their mean is the expected loss.

    Every position is hidden with chance `ratio`. The loss is divided by the expected number of hidden positions, or
    with `per_mask` by that of its own mask, masks that hide nothing being left out.
    """
    length = inputs.shape[1]
    hidden = all_masks(length)
    counts = hidden.sum(1)
    chances = ratio**counts * (1 - ratio) ** (length - counts)
    weights = chances / counts / chances.sum() if per_mask else chances / (ratio * length)
    losses = masked_losses(np.repeat(inputs, len(hidden), axis=0), np.tile(hidden, (len(inputs), 1)), gain)
    scaled = tensor(np.tile(weights * len(hidden), len(inputs)))
    return lambda scores: scaled * losses(scores)


# Derivatives ---------------------------------------------------------------------------------------------------------


def gradient(function: Callable[[Tensor], Tensor], scores: Array) -> Array:
    """The gradient (L, L) of the mean of `function` over its sequences, by reverse mode."""
    point = tensor(scores).requires_grad_(True)
    (result,) = torch.autograd.grad(function(point).mean(), point)
    return result.numpy()


def derivative(function: Callable[[Tensor], Tensor], scores: Array, direction: Array) -> Array:
    """The derivative along a direction, one number per sequence (n,)."""
    return slope(function, direction)(tensor(scores).requires_grad_(True)).detach().numpy()


def second_derivative(function: Callable[[Tensor], Tensor], scores: Array, direction: Array) -> Array:
    """The second derivative along a direction, one number per sequence (n,)."""
    return derivative(slope(function, direction), scores, direction)


def slope(function: Callable[[Tensor], Tensor], direction: Array) -> Callable[[Tensor], Tensor]:
    """The derivative along a direction as a function of the scores.

    The gradient of sum_n u_n f_n is linear in u, so differentiating its product with the direction by u gives every
    sequence's derivative from two reverse passes (torch's forward mode does the same, but warns on import).
    """

    def evaluate(point: Tensor) -> Tensor:
        outputs = function(point)
        weights = torch.ones_like(outputs, requires_grad=True)
        (gradients,) = torch.autograd.grad(outputs, point, weights, create_graph=True)
        return torch.autograd.grad((gradients * tensor(direction)).sum(), weights, create_graph=True)[0]

    return evaluate


def values(function: Callable[[Tensor], Tensor], scores: Array) -> Array:
    """The function itself, one number per sequence (n,)."""
    with torch.no_grad():
        return function(tensor(scores)).numpy()


def ray(function: Callable[[Tensor], Tensor], start: Array, direction: Array, steps: Array) -> Array:
    """f(S0 + t Delta) - f(S0) for every step t: (len(steps), n)."""
    base = values(function, start)
    return np.stack([values(function, start + step * direction) - base for step in steps])


# Statistics ----------------------------------------------------------------------------------------------------------


def row_spread(matrix: Array) -> float:
    """||G - row mean|| / ||G||: 0 when all rows agree, 1 when the mean row is zero."""
    return float(np.linalg.norm(matrix - matrix.mean(0)) / np.linalg.norm(matrix))


def by_offset(matrix: Array) -> Array:
    """The mean of a matrix over its entries of one offset (j - i) mod L; (L,)."""
    length = len(matrix)
    rows, offsets = np.arange(length)[:, None], np.arange(length)
    return matrix[rows, (rows + offsets) % length].mean(0)


def log_slope(x: Array, y: Array) -> float:
    """Least-squares slope of log y over log x."""
    return float(np.polynomial.polynomial.polyfit(np.log(x), np.log(y), 1)[1])


def in_chunks(inputs: Array, size: int) -> Iterator[Array]:
    """Consecutive pieces of at most `size` sequences."""
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]
