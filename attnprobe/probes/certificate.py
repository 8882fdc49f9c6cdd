"""Slope and curvature of both losses along named directions of the scores: the local-blindness statement on a model.

For one direction Delta of one head, every sequence's loss is a function of the scalar t in scores + t Delta. Slope and
curvature at t = 0 are computed twice, in float64: by differentiating twice, and by central finite differences. The
latter also give the logits at -eps, 0 and +eps, so the label loss under any shuffled labels is known without another
pass through the model.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.errors import NotApplicableError
from attnprobe.models import Transformer
from attnprobe.objectives import EVALUATION, CausalPrediction, MaskedReconstruction, label_outputs
from attnprobe.probes.alignment.probe import check_labels
from attnprobe.probes.intervention_profiles import batches, dense_space
from attnprobe.probes.rows import Measurement
from attnprobe.probes.score_gradients import tapped
from attnprobe.probes.sequences import Progress
from attnprobe.scores.directions import Direction, Projector, ScoreSpace
from attnprobe.statistics.intervals import Interval, band_from_replicates, bootstrap
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.tasks import Batch, Split

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


def measure(
    model: Transformer,
    split: Split,
    *,
    reconstruction: MaskedReconstruction | CausalPrediction,
    directions: Sequence[Direction] | None = None,
    n: int = 200,
    shuffles: int = 999,
    level: float = 0.95,
    batch: int = 50,
    seed: int = 0,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> list[CertificateRow]:
    """Certify every layer and head of a model on ``n`` random sequences; up to 1024 positions.

    directions: ``blindness_directions`` by default, each centred in its rows and of unit norm. seed: of the masks.
    Raises NotApplicableError where scores cannot matter or are too many.
    """
    space = dense_space(model)
    model = copy.deepcopy(model).double().eval()
    layers, heads = len(model.blocks), model.config.heads
    chosen = blindness_directions(space, generator) if directions is None else list(directions)
    projector = Projector(space, chosen, layers=layers, heads=heads)
    index = generator.permutation(len(split))[:n]
    chosen_labels = split.labels[torch.as_tensor(index, device=split.labels.device)]
    check_labels(model, chosen_labels)
    labels = chosen_labels.cpu().numpy()
    rows, total = [], len(projector.names) * layers * heads
    for name in projector.names:
        delta = projector.matrix(name).to(next(model.parameters()))
        for layer, head in np.ndindex(layers, heads):
            along = _Along(model, layer, head, delta[layer, head])
            found = [along.differentiate(b, reconstruction, seed) for b in batches(split, index, batch)]
            joined = {key: np.concatenate([f[key] for f in found]) for key in found[0]}
            if not all(np.isfinite(values).all() for values in joined.values()):
                raise NotApplicableError(
                    f"layer {layer}, head {head}: losses are not finite; the model has diverged",
                    hint="take an earlier checkpoint, or train again with a smaller optimizer.lr",
                )
            place = {"layer": layer, "head": head, "direction": name}
            rows += _label_rows(joined, along.step, labels, shuffles, level, generator, place)
            rows += _reconstruction_rows(joined, along.step, level, generator, place)
            if progress is not None:
                progress(len(rows) // 4, total)
    return rows


def blindness_directions(space: ScoreSpace, generator: np.random.Generator) -> list[Direction]:
    """Proximity of several radii; a key-only, a random visible and a random blind direction (column sums zero)."""
    distance = space.layout.distance()
    found = [Direction(name=f"proximity r={r:g}", profile=torch.exp(-distance / r)) for r in (1.0, 2.0, 4.0)]
    left, right = (torch.from_numpy(generator.standard_normal(space.length)) for _ in range(2))
    found.append(Direction(name="key-only", factors=(torch.ones(space.length, dtype=torch.float64), right)))
    found.append(Direction(name="random blind", factors=(left - left.mean(), right)))
    return [*found, Direction(name="random", factors=(left, right.flip(0)))]


class _Along:
    """One direction of one head."""

    def __init__(self, model: Transformer, layer: int, head: int, delta: Tensor) -> None:
        self.model, self.layer, self.head, self.delta = model, layer, head, delta
        self.step = LARGEST_STEP / float(delta.abs().max())

    def differentiate(
        self, batch: Batch, reconstruction: MaskedReconstruction | CausalPrediction, seed: int
    ) -> dict[str, np.ndarray]:
        """Per sequence: exact derivatives of both losses, and logits and losses at -eps, 0, +eps."""

        def label_loss(t: Tensor) -> Tensor:
            with self._moved(t):
                return F.cross_entropy(label_outputs(self.model, batch), batch.labels, reduction="none")

        def reconstruction_loss(t: Tensor) -> Tensor:
            with self._moved(t):
                losses = reconstruction.losses(self.model, batch, seed=seed, epoch=EVALUATION)
            return losses.loss / losses.count.clamp(min=1)

        found: dict[str, Tensor] = {}
        for name, loss in (("label", label_loss), ("reconstruction", reconstruction_loss)):
            t = torch.zeros(len(batch), dtype=torch.float64, device=batch.labels.device, requires_grad=True)
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels can be differentiated only once
                (slope,) = torch.autograd.grad(loss(t).sum(), t, create_graph=True)
                (curvature,) = torch.autograd.grad(slope.sum(), t)
            found |= {f"{name}.slope": slope.detach(), f"{name}.curvature": curvature}
        with torch.no_grad():
            steps = [torch.full_like(t, sign * self.step) for sign in (-1, 0, 1)]
            logits = []
            for step in steps:
                with self._moved(step):
                    logits.append(label_outputs(self.model, batch))
            found["logits"] = torch.stack(logits, 1)  # (batch, 3, class)
            found["losses"] = torch.stack([reconstruction_loss(step) for step in steps], 1)  # (batch, 3)
        return {name: values.cpu().numpy() for name, values in found.items()}

    def _moved(self, t: Tensor) -> Any:
        """The model with t (batch,) times the direction added to this head's scores."""
        one_head = F.one_hot(torch.tensor(self.head), self.model.config.heads).to(self.delta)
        offset = t[:, None, None, None] * one_head[:, None, None] * self.delta
        return tapped(self.model, score_offsets={self.layer: offset})


def _differences(values: np.ndarray, step: float) -> dict[str, np.ndarray]:
    """Central differences from values (n, 3, ...) at -step, 0, step."""
    low, middle, high = values[:, 0], values[:, 1], values[:, 2]
    return {"slope": (high - low) / (2 * step), "curvature": (high - 2 * middle + low) / step**2}


def _label_rows(
    found: dict[str, np.ndarray],
    step: float,
    labels: np.ndarray,
    shuffles: int,
    level: float,
    generator: np.random.Generator,
    place: dict[str, Any],
) -> list[CertificateRow]:
    """The loss of every sequence under every label, then means under the true and under shuffled labels."""
    logits = found["logits"]
    largest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(-1, keepdims=True)) + largest
    under_each = _differences(log_sum - logits, step)  # (n, class)
    permuted = np.stack([generator.permutation(labels) for _ in range(shuffles)])
    rows = []
    for quantity, values in under_each.items():
        own = values[np.arange(len(labels)), labels]
        null = values[np.arange(len(labels)), permuted].mean(1)
        p_value = float(permutation_p_value(own.mean() - null.mean(), null - null.mean()))
        band = band_from_replicates(null.mean(), null, level=level, n=len(labels)).interval(unit="")
        exact = found[f"label.{quantity}"]
        rows.append(_row("label", quantity, exact, own, level, generator, place, p_value=p_value, null=band))
    return rows


def _reconstruction_rows(
    found: dict[str, np.ndarray], step: float, level: float, generator: np.random.Generator, place: dict[str, Any]
) -> list[CertificateRow]:
    return [
        _row("reconstruction", quantity, found[f"reconstruction.{quantity}"], values, level, generator, place)
        for quantity, values in _differences(found["losses"], step).items()
    ]


def _row(
    loss: str,
    quantity: str,
    exact: np.ndarray,
    by_differences: np.ndarray,
    level: float,
    generator: np.random.Generator,
    place: dict[str, Any],
    *,
    p_value: float | None = None,
    null: Interval | None = None,
) -> CertificateRow:
    unit = "loss per unit score" if quantity == "slope" else "loss per unit score squared"
    interval = bootstrap(exact, level=level, generator=generator).interval(unit=unit)
    scale = max(float(np.abs(exact).max()), 1e-12)
    difference = float(np.abs(exact - by_differences).max()) / scale
    return CertificateRow(
        quantity=quantity,
        interval=interval,
        p_value=p_value,
        loss=loss,
        null_low=None if null is None else null.low,
        null_high=None if null is None else null.high,
        difference=difference,
        agrees=difference <= TOLERANCE,
        **place,
    )
