"""Slopes and curvatures of every target of a loss along directions of the scores, sample by sample, in float64.

Slopes come from one backward pass per target. Curvatures come from finite steps: differentiating twice would miss the
kinks of an absolute error or of a ReLU, which bend the mean loss as much as anything smooth does. The steps also give
the slopes a second time, and their errors tell whether the loss is smooth.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.subject import ScoreOffsets, Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.score_gradients import trace
from attnprobe.scores.directions import Projector

STEP = 0.1  # the largest score moves by this much, and by twice as much
LEFT = 0.2  # of a step's error: what extrapolation leaves of it at most unless there are kinks
SMOOTH = 1e-5  # of the largest slope and of its change within a step: the same where one step has hardly any error
ROUNDED = 1e-14  # of a value: how far float64 gets it wrong
DIVERGED = "take an earlier checkpoint, or train again with a smaller optimizer.lr"  # a hint
TOLERANCES = {"slope": 1e-4, "curvature": 5e-2}  # largest difference, relative to the largest value over the samples
STANDARD_ERRORS = 5.0  # that the means of two computations may differ by where there are kinks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Along:
    """Derivatives of one loss along one direction of one head, (sample, target) each."""

    curvature: np.ndarray
    rough: bool  # has kinks, or bends too sharply for the steps
    difference: dict[str, float]  # by quantity: between its two computations, relative to the largest value
    agrees: dict[str, bool]


def slopes(subject: Subject, loss: str, samples: np.ndarray, projector: Projector) -> np.ndarray:
    """(sample, target, layer, head, direction) by differentiating; targets as of ``targets_of``."""
    traced = trace(subject, samples, loss, method="streamed")
    found: Tensor | None = None
    for block in traced.gradients(projector.space.length):
        folded = projector.space.fold(block.values, block.rows)
        part = projector.project(block.values, folded, block.layer, block.rows)  # target, sample, head, direction
        if found is None:
            shape = (part.shape[1], part.shape[0], len(subject.layers), *part.shape[2:])
            found = torch.zeros(shape, dtype=torch.float64, device=part.device)
        found[:, :, block.layer] += part.transpose(0, 1)
    assert found is not None
    if loss != "label":
        targets = traced.loss.targets.detach().requires_grad_()
        (coefficients,) = torch.autograd.grad(traced.loss.of(targets).sum(), targets)
        found = torch.einsum("nt...,nt->n...", found, coefficients.double())[:, None]
    return found.cpu().numpy()


@torch.no_grad()
def targets_of(
    subject: Subject, loss: str, samples: np.ndarray, score_offsets: ScoreOffsets | None = None
) -> np.ndarray:
    """(sample, target) float64: the logits, from which the label loss under any labels follows, or one value."""
    found = subject.loss(loss, samples, score_offsets=score_offsets)
    values = found.targets if loss == "label" else found.value[:, None]
    return values.double().cpu().numpy()


class Stepper:
    """Finite steps along one direction of one head."""

    def __init__(self, subject: Subject, layer: int, head: int, delta: Tensor) -> None:
        """delta (query, key): the direction."""
        self.subject, self.layer = subject, layer
        self.size = STEP / float(delta.abs().max())
        one_head = F.one_hot(torch.tensor(head), subject.shape[1]).to(delta)
        self.offset = (one_head[:, None, None] * delta)[None]

    def outer(self, loss: str, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(4, sample, target) of the samples in these batches: two steps back, one back, one on, two on."""
        offsets = [{self.layer: steps * self.size * self.offset} for steps in (-2, -1, 1, 2)]
        found = [[targets_of(self.subject, loss, part, offset) for part in parts] for offset in offsets]
        return np.stack([np.concatenate(values) for values in found])


def along(outer: np.ndarray, middle: np.ndarray, slope: np.ndarray, step: float) -> Along:
    """outer (4, sample, target) of ``Stepper.outer``; middle (sample, target) at rest; slope by differentiating."""
    if not (np.isfinite(outer).all() and np.isfinite(middle).all()):
        raise NotApplicableError(
            "losses are not finite; the model has diverged",
            hint=DIVERGED,
        )
    first = [(outer[2] - outer[1]) / (2 * step), (outer[3] - outer[0]) / (4 * step)]
    second = [(outer[2] - 2 * middle + outer[1]) / step**2, (outer[3] - 2 * middle + outer[0]) / (4 * step**2)]
    noise = ROUNDED * float(np.abs(middle).max())
    floors = {"slope": noise / step, "curvature": noise / step**2}

    def compared(curvature: np.ndarray, *, rough: bool) -> dict[str, tuple[float, bool]]:
        pairs = {"slope": (slope, extrapolated(first)), "curvature": (curvature, second[0])}
        return {q: compare(a, b, TOLERANCES[q], floors[q], rough=rough) for q, (a, b) in pairs.items()}

    curvature = extrapolated(second)
    found = compared(curvature, rough=False)
    # A kink may lie where it leaves what a smooth loss would.
    rough = is_rough(first, second, slope, step, floors["slope"]) or not all(agrees for _, agrees in found.values())
    if rough:
        curvature = second[1]  # the longer step averages over more kinks
        found = compared(curvature, rough=True)
    return Along(
        curvature=curvature,
        rough=rough,
        difference={quantity: difference for quantity, (difference, _) in found.items()},
        agrees={quantity: agrees for quantity, (_, agrees) in found.items()},
    )


def is_rough(
    first: list[np.ndarray], second: list[np.ndarray], slope: np.ndarray, step: float, rounding: float
) -> bool:
    """Whether some sample's slope is not what its finite steps converge on. first, second: differences at one step and
    at two. Where a loss is smooth, extrapolation leaves little of the error of one step, or of the slope and of what
    it changes by within a step.
    """
    left, before = np.abs(extrapolated(first) - slope), np.abs(first[0] - slope)
    scale = np.abs(slope).max() + step * np.abs(second[0]).max()
    return bool(((left > LEFT * before) & (left > SMOOTH * scale + rounding)).any())


def extrapolated(values: list[np.ndarray]) -> np.ndarray:
    """Richardson's: from errors that grow with the square of the step, at one step and at two."""
    return (4 * values[0] - values[1]) / 3


def compare(one: np.ndarray, other: np.ndarray, tolerance: float, floor: float, *, rough: bool) -> tuple[float, bool]:
    """The difference of two computations (sample, target) relative to the largest value, and whether it is explained:
    for a smooth loss by ``tolerance`` in every sample, for one with kinks by noise in the means. floor: of rounding.
    """
    scale = max(float(np.abs(one).max()), floor)
    if not rough:
        difference = float(np.abs(one - other).max())
        return difference / scale if scale else 0.0, difference <= tolerance * scale + floor
    gap = one - other
    error = gap.std(0, ddof=1) / np.sqrt(len(gap))
    explained = np.abs(gap.mean(0)) <= STANDARD_ERRORS * error + tolerance * np.abs(one.mean(0)) + floor
    return float(np.abs(gap.mean(0)).max()) / scale, bool(explained.all())
