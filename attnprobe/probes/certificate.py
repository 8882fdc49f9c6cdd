"""Slope and curvature of both losses along named directions of the scores: the local-blindness statement on a model.

For one direction Delta of one head, every sequence's loss is a function of the scalar t in scores + t Delta. Slope and
curvature at t = 0 are computed twice, in float64: by differentiating twice, and by central finite differences. The
latter also give the logits at -eps, 0 and +eps, so the label loss under any shuffled labels is known without another
pass through the model.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.capture.subject import Loss, Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.alignment.probe import check_labels
from attnprobe.probes.interventions.profiles import dense_space
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.directions import Direction, Projector, ScoreSpace
from attnprobe.statistics.intervals import Interval, band_from_replicates, bootstrap
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.streams import stream

LARGEST_STEP = 3e-3  # eps times the largest entry of Delta: scores move by at most this much
TOLERANCE = 1e-4  # largest difference between the two computations, relative to the largest value over the sequences


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateRow(Measurement):
    """``quantity`` is "slope" or "curvature"; p_value and null are against shuffled labels, label loss only.

    The null is the band of the estimate over shuffled labels: a label slope is never zero at an untrained readout, but
    it may be what any labels would give.
    """

    loss: str  # "label" or "reconstruction"
    direction: str
    null_low: float | None
    null_high: float | None
    difference: float  # between the two computations, relative to the largest value over the sequences
    agrees: bool  # difference <= TOLERANCE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    rows: list[CertificateRow]
    samples: np.ndarray  # (n,) those that were measured


def measure(
    subject: Subject,
    *,
    directions: Sequence[Direction] | None = None,
    n: int = 200,
    shuffles: int = 999,
    level: float = 0.95,
    batch: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Certificate:
    """Certify every layer and head of a subject on ``n`` samples; up to 1024 positions.

    directions: ``blindness_directions`` by default, each centred in its rows and of unit norm.
    Raises NotApplicableError where scores cannot matter or are too many.
    """
    space, (layers, heads) = dense_space(subject), subject.shape
    exact = subject.double()
    chosen = blindness_directions(space, seed) if directions is None else list(directions)
    projector = Projector(space, chosen, layers=layers, heads=heads)
    samples = subject.draw(n, seed)
    check_labels(subject, samples)
    assert subject.labels is not None
    draws = _Draws(labels=subject.labels[samples], shuffles=shuffles, level=level, seed=seed)
    rows, total = [], len(projector.names) * layers * heads
    for name in projector.names:
        delta = projector.matrix(name).to(exact.layers[0].device)
        for layer, head in np.ndindex(layers, heads):
            along = _Along(exact, layer, head, delta[layer, head])
            found = [along.differentiate(part) for _, part in batches(samples, batch)]
            joined = {key: np.concatenate([f[key] for f in found]) for key in found[0]}
            if not all(np.isfinite(values).all() for values in joined.values()):
                raise NotApplicableError(
                    f"layer {layer}, head {head}: losses are not finite; the model has diverged",
                    hint="take an earlier checkpoint, or train again with a smaller optimizer.lr",
                )
            place = {"layer": layer, "head": head, "direction": name}
            rows += _label_rows(joined, along.step, draws, place)
            rows += _reconstruction_rows(joined, along.step, draws, place)
            if progress is not None:
                progress(len(rows) // 4, total)
    return Certificate(rows=rows, samples=samples)


def blindness_directions(space: ScoreSpace, seed: int) -> list[Direction]:
    """Proximity of several radii; a key-only, a random visible and a random blind direction (column sums zero)."""
    distance = space.layout.distance()
    found = [Direction(name=f"proximity r={r:g}", profile=torch.exp(-distance / r)) for r in (1.0, 2.0, 4.0)]
    left, right = torch.from_numpy(stream(seed, "blindness directions").standard_normal((2, space.length)))
    found.append(Direction(name="key-only", factors=(torch.ones(space.length, dtype=torch.float64), right)))
    found.append(Direction(name="random blind", factors=(left - left.mean(), right)))
    return [*found, Direction(name="random", factors=(left, right.flip(0)))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draws:
    """What is drawn at random, the same for every direction and head."""

    labels: np.ndarray  # (n,)
    shuffles: int
    level: float
    seed: int

    def permuted(self) -> np.ndarray:
        """(shuffle, n)"""
        generator = stream(self.seed, "label shuffles")
        return np.stack([generator.permutation(self.labels) for _ in range(self.shuffles)])

    def bootstrap(self, values: np.ndarray, unit: str) -> Interval:
        return bootstrap(values, level=self.level, generator=stream(self.seed, "bootstrap")).interval(unit=unit)


class _Along:
    """One direction of one head."""

    def __init__(self, subject: Subject, layer: int, head: int, delta: Tensor) -> None:
        self.subject, self.layer, self.head, self.delta = subject, layer, head, delta
        self.step = LARGEST_STEP / float(delta.abs().max())

    def differentiate(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Per sample: exact derivatives of both losses, and logits and losses at -eps, 0, +eps."""
        found: dict[str, Tensor] = {}
        zero = torch.zeros(len(samples), dtype=torch.float64, device=self.delta.device)
        for name in ("label", "reconstruction"):
            t = zero.clone().requires_grad_()
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels can be differentiated only once
                (slope,) = torch.autograd.grad(self.moved(name, samples, t).value.sum(), t, create_graph=True)
                (curvature,) = torch.autograd.grad(slope.sum(), t)
            found |= {f"{name}.slope": slope.detach(), f"{name}.curvature": curvature}
        with torch.no_grad():
            steps = [torch.full_like(zero, sign * self.step) for sign in (-1, 0, 1)]
            logits = [self.moved("label", samples, step).targets for step in steps]
            found["logits"] = torch.stack(logits, 1)  # (sample, 3, class)
            losses = [self.moved("reconstruction", samples, step).value for step in steps]
            found["losses"] = torch.stack(losses, 1)  # (sample, 3)
        return {name: values.cpu().numpy() for name, values in found.items()}

    def moved(self, loss: str, samples: np.ndarray, t: Tensor) -> Loss:
        """With t (sample,) times the direction added to this head's scores."""
        one_head = F.one_hot(torch.tensor(self.head), self.subject.shape[1]).to(self.delta)
        offset = t[:, None, None, None] * one_head[:, None, None] * self.delta
        return self.subject.loss(loss, samples, score_offsets={self.layer: offset})


def _differences(values: np.ndarray, step: float) -> dict[str, np.ndarray]:
    """Central differences from values (n, 3, ...) at -step, 0, step."""
    low, middle, high = values[:, 0], values[:, 1], values[:, 2]
    return {"slope": (high - low) / (2 * step), "curvature": (high - 2 * middle + low) / step**2}


def _label_rows(
    found: dict[str, np.ndarray], step: float, draws: _Draws, place: dict[str, Any]
) -> list[CertificateRow]:
    """The loss of every sequence under every label, then means under the true and under shuffled labels."""
    logits, labels = found["logits"], draws.labels
    largest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(-1, keepdims=True)) + largest
    under_each = _differences(log_sum - logits, step)  # (n, class)
    permuted = draws.permuted()
    rows = []
    for quantity, values in under_each.items():
        own = values[np.arange(len(labels)), labels]
        null = values[np.arange(len(labels)), permuted].mean(1)
        p_value = float(permutation_p_value(own.mean() - null.mean(), null - null.mean()))
        band = band_from_replicates(null.mean(), null, level=draws.level, n=len(labels)).interval(unit="")
        exact = found[f"label.{quantity}"]
        rows.append(_row("label", quantity, exact, own, draws, place, p_value=p_value, null=band))
    return rows


def _reconstruction_rows(
    found: dict[str, np.ndarray], step: float, draws: _Draws, place: dict[str, Any]
) -> list[CertificateRow]:
    return [
        _row("reconstruction", quantity, found[f"reconstruction.{quantity}"], values, draws, place)
        for quantity, values in _differences(found["losses"], step).items()
    ]


def _row(
    loss: str,
    quantity: str,
    exact: np.ndarray,
    by_differences: np.ndarray,
    draws: _Draws,
    place: dict[str, Any],
    *,
    p_value: float | None = None,
    null: Interval | None = None,
) -> CertificateRow:
    unit = "loss per unit score" if quantity == "slope" else "loss per unit score squared"
    scale = max(float(np.abs(exact).max()), 1e-12)
    difference = float(np.abs(exact - by_differences).max()) / scale
    return CertificateRow(
        quantity=quantity,
        interval=draws.bootstrap(exact, unit),
        p_value=p_value,
        loss=loss,
        null_low=None if null is None else null.low,
        null_high=None if null is None else null.high,
        difference=difference,
        agrees=difference <= TOLERANCE,
        **place,
    )
