"""What intervals should cover: values of a whole population, by dense formulas that share no code with the probes."""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture import Subject
from attnprobe.scores.call import AttentionCall


class Scores:
    """Dense scores of a population's first layer, and who sees whom; all float64 (sequence, head, query, key)."""

    def __init__(self, subject: Subject) -> None:
        calls: list[AttentionCall] = []
        samples = np.arange(subject.samples)
        with torch.no_grad():
            subject.run(samples, observe=calls.append)
        self.subject, call = subject, calls[0]
        self.q, self.k = call.q.double(), call.k.double()
        self.scale = call.scale
        length = self.q.shape[-2]
        valid = subject.real(samples)
        self.real = torch.ones(len(samples), length, dtype=torch.bool) if valid is None else valid
        self.seen = (self.real[:, :, None] & self.real[:, None, :] & visible(subject))[:, None]
        self.distance = distances(subject)

    @functools.cached_property
    def values(self) -> Tensor:
        return self.q @ self.k.mT * self.scale

    def centred(self, scores: Tensor, seen: Tensor | None = None) -> Tensor:
        """Minus the mean over the keys that each query sees; zero elsewhere."""
        seen = self.seen if seen is None else seen
        mean = (scores * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)
        return (scores - mean) * seen

    def bias(self, radius: float, *, include_self: bool = True) -> dict[str, np.ndarray]:
        """What the proximity probe says of the scores, (head,) each."""
        near, far = self.distance <= radius, self.distance > radius
        seen = self.seen if include_self else self.seen & (self.distance > 0)
        scores, pairs = self.centred(self.values, seen), seen.sum((0, -2, -1))

        def mean(which: Tensor) -> Tensor:
            chosen = which & seen
            return (scores * chosen).sum((0, -2, -1)) / chosen.sum((0, -2, -1))

        spread = (scores.square().sum((0, -2, -1)) / pairs).sqrt()
        return {"proximity_bias": ((mean(near) - mean(far)) / spread).numpy(), "score_sd": spread.numpy()}

    def mass(self, radius: float) -> dict[str, np.ndarray]:
        """What it says of the patterns, (head,) each."""
        near, queries = self.distance <= radius, self.real.sum()
        pattern = self.values.masked_fill(~self.seen, -math.inf).softmax(-1).nan_to_num(0.0)
        uniform = (near * self.seen).sum(-1) / self.seen.sum(-1).clamp(min=1)
        values = {
            "near_mass": (pattern * near).sum((0, -2, -1)) / uniform.sum(),
            "distance": (pattern * self.distance).sum((0, -2, -1)) / queries,
            "entropy": -(pattern * pattern.clamp(min=1e-300).log()).sum((0, -2, -1)) / queries,
        }
        return {name: value.numpy() for name, value in values.items()}

    def shares(self) -> dict[str, np.ndarray]:
        """Shares of score variance of position, content and interaction, (head,) each."""
        mean_q, mean_k = (self._mean(x) for x in (self.q, self.k))
        x, y = self.q - mean_q, self.k - mean_k
        parts = {
            "position": mean_q @ mean_k.mT,
            "content": x @ y.mT,
            "interaction": mean_q @ y.mT + x @ mean_k.mT,
        }
        whole = self.centred(self.q @ self.k.mT)
        variance = whole.square().sum((0, -2, -1))
        return {
            f"{name}_share": ((self.centred(part) * whole).sum((0, -2, -1)) / variance).numpy()
            for name, part in parts.items()
        }

    def _mean(self, x: Tensor) -> Tensor:
        """Over sequences at every position; under rotary embedding over positions too, before the rotation."""
        rotation, real = self.subject.rotation, self.real[:, None, :, None]
        if rotation is None:
            return (x * real).sum(0, keepdim=True) / real.sum(0, keepdim=True).clamp(min=1)
        plain = (rotation.back(x) * real).sum((0, 2), keepdim=True) / real.sum()
        return rotation.turn(plain.expand(1, *x.shape[1:]))


def masses(patterns: np.ndarray, shape: tuple[int, ...], *, causal: bool) -> dict[str, np.ndarray]:
    """What the kernels probe says of patterns (kernel, query, key) whose rows sum to 1, (kernel,) each."""
    away = between(shape).numpy()
    seen = np.tril(np.ones_like(away)) if causal else np.ones_like(away)
    near = (away <= (1.5 if len(shape) == 2 else 3.0)) * seen
    logarithms = np.log(patterns, out=np.zeros_like(patterns), where=patterns > 0)
    return {
        "near_mass": (patterns * near).sum((-2, -1)) / (near.sum(-1) / seen.sum(-1)).sum(),
        "distance": (patterns * away).sum(-1).mean(-1),
        "entropy": -(patterns * logarithms).sum(-1).mean(-1),
    }


def visible(subject: Subject) -> Tensor:
    """(query, key) bool: who sees whom, padding aside."""
    layout, place = subject.space.layout, torch.arange(subject.space.length)
    seen = torch.ones(len(place), len(place), dtype=torch.bool)
    seen = seen.tril() if layout.causal else seen
    if layout.block is None:
        return seen
    block = torch.div(place, layout.block, rounding_mode="floor")
    return seen & ((block[:, None] - block).abs() < 2)


def distances(subject: Subject) -> Tensor:
    """(length, length) |offset| on a line, Euclidean on a grid."""
    return between(subject.space.layout.shape)


def between(shape: tuple[int, ...]) -> Tensor:
    """``distances`` of positions in this shape."""
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in shape), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], -1)
    return (places[:, None] - places).square().sum(-1).sqrt()


def unit_direction(subject: Subject, kernel: Tensor) -> Tensor:
    """A matrix (length, length) centred over the keys a query may see, padding aside, and of unit norm."""
    seen, kernel = visible(subject), kernel.double()
    centred = (kernel - (kernel * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)) * seen
    return centred / centred.norm()


def on_real_pairs(subject: Subject, direction: Tensor) -> Tensor:
    """The direction of each sequence: centred over its real keys and of unit norm over its real pairs."""
    real = subject.real(np.arange(subject.samples))
    if real is None:
        return direction
    seen = (real[:, :, None] & real[:, None, :] & visible(subject))[:, None]
    mean = (direction * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)
    centred = (direction - mean) * seen
    return centred / centred.norm(dim=(-2, -1), keepdim=True)


def score_gradients(subject: Subject, loss: str, target: int | None = None) -> Tensor:
    """Of every sequence's loss along the scores: (sequence, head, length, length).

    target: of that number among the loss's targets (a logit) instead of the loss.
    """
    heads, length = subject.layers[0].heads, subject.space.length
    zero = torch.zeros(subject.samples, heads, length, length, requires_grad=True)
    found = subject.loss(loss, np.arange(subject.samples), score_offsets={0: zero})
    values = found.value if target is None else found.targets[:, target]
    return torch.autograd.grad(values.sum(), zero)[0]


def projected(gradients: Tensor, direction: Tensor) -> np.ndarray:
    """On a unit direction ([sequence, 1,] length, length): (sequence, head) float64."""
    return (gradients * direction).sum((-2, -1), dtype=torch.float64).numpy()


def offset_share(subject: Subject, gradients: Tensor) -> np.ndarray:
    """Share of the energy of score gradients that depends on the offset only, each over its real pairs: (head,)."""
    shape = subject.space.layout.shape
    places = torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"), -1).flatten(0, -2)
    offsets = (places - places[:, None]).flatten(0, 1)  # key - query
    _, number = offsets.unique(dim=0, return_inverse=True)
    size = int(number.max()) + 1
    real = subject.real(np.arange(subject.samples))
    real = torch.ones(1, subject.space.length, dtype=torch.bool) if real is None else real
    seen = (real[:, :, None] & real[:, None, :] & visible(subject)).flatten(1).double()
    flat = gradients.double().flatten(-2) * seen[:, None]
    counts = torch.zeros(len(seen), size, dtype=torch.float64).index_add_(-1, number, seen)
    sums = torch.zeros(*flat.shape[:-1], size, dtype=torch.float64).index_add_(-1, number, flat)
    kept = (sums.square() / counts.clamp(min=1)[:, None]).sum((0, -1))
    return (kept / flat.square().sum((0, -1))).numpy()
