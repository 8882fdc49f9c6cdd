"""Slopes and curvatures of every target of a loss along directions of the scores, sample by sample, in float64.

Slopes come from one backward pass per target. Curvatures come from finite steps: differentiating twice would miss the
kinks of an absolute error or of a ReLU, which bend the mean loss as much as anything smooth does. The steps also give
the slopes a second time, and their errors tell whether the loss is smooth. Both move a padded sequence along its own
direction, which is fitted to its real pairs.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.subject import ScoreOffsets, Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.blindness.padding import Padded
from attnprobe.probes.score_gradients import trace
from attnprobe.probes.sequences import seen
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


def slopes(subject: Subject, loss: str, samples: np.ndarray, projector: Projector, padded: Padded) -> np.ndarray:
    """(sample, target, layer, head, direction) by differentiating; targets as of ``targets_of``."""
    traced = trace(subject, samples, loss, method="streamed")
    valid = any_padding(traced.valid)
    found: Tensor | None = None
    for block in traced.gradients(projector.space.length):
        if valid is None:
            folded = projector.space.fold(block.values, block.rows)
            part = projector.project(block.values, folded, block.layer, block.rows)  # target, sample, head, direction
        else:
            part = padded.project(block.values, block.layer, valid)
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


def any_padding(valid: Tensor | None) -> Tensor | None:
    return None if valid is None or bool(valid.all()) else valid


@torch.no_grad()
def real_positions(subject: Subject, samples: np.ndarray) -> Tensor | None:
    """(sample, length) bool, False at what is padding to the model; None if nothing is."""
    found: list[Tensor | None] = []
    subject.run(samples, observe=lambda call: found.append(seen(subject, call)))
    return any_padding(found[0])


class Stepper:
    """Finite steps along one direction of one head, all of one size."""

    def __init__(
        self, subject: Subject, name: str, place: tuple[int, int], delta: Tensor, padded: Padded,
        parts: Sequence[tuple[np.ndarray, Tensor | None]],
    ) -> None:  # fmt: skip
        """delta (query, key): the direction called ``name`` of the layer and head at ``place``. parts: batches of
        samples with what is real in them.
        """
        self.subject, self.name, self.padded, self.parts = subject, name, padded, parts
        self.layer, self.head = place
        masks = [mask for _, valid in parts if valid is not None for mask in valid.unique(dim=0)]
        largest = [float(self._own(padded.largest(name, mask))) for mask in masks]
        self.size = STEP / max([float(delta.abs().max()), *largest])
        self.one_head = F.one_hot(torch.tensor(self.head), subject.shape[1]).to(delta)[:, None, None]
        self.offset = (self.one_head * delta)[None]

    def outer(self, loss: str) -> np.ndarray:
        """(4, sample, target): two steps back, one back, one on, two on."""
        found = []
        for part, valid in self.parts:
            along = self.offset if valid is None else self._of_each(valid)
            offsets = [{self.layer: steps * self.size * along} for steps in (-2, -1, 1, 2)]
            found.append(np.stack([targets_of(self.subject, loss, part, offset) for offset in offsets]))
        return np.concatenate(found, 1)

    def _of_each(self, valid: Tensor) -> Tensor:
        """(sample, head, query, key): the direction of every sample."""
        masks, which = valid.unique(dim=0, return_inverse=True)
        each = torch.stack([self._own(self.padded.matrix(self.name, mask)) for mask in masks]).to(self.offset)
        leading = self.padded.space.leading
        return self.one_head * F.pad(each, (leading, 0, leading, 0))[which, None]

    def _own(self, values: Tensor) -> Tensor:
        """(layer or 1, head or 1, ...) -> (...)"""
        of_layer = values[self.layer if len(values) > 1 else 0]
        return of_layer[self.head if len(of_layer) > 1 else 0]


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
