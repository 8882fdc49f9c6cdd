"""Are labels blind to named directions of the scores, on this model and these data, at first and second order?

For one direction Delta of one head, every loss is a function of the scalar t in scores + t Delta. Its slope and
curvature at t = 0 are measured for every logit and every sample, so the label loss under any labels is known. The part
of it that depends on the labels is compared with shuffled labels, over all heads and directions at once, and bounded in
units of what reconstruction pulls along the same direction.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from attnprobe.capture.footprint import peak_bytes
from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.errors import NotApplicableError
from attnprobe.probes.alignment.checks import check_draws, check_enough, check_labels, check_varying
from attnprobe.probes.alignment.rows import Settings
from attnprobe.probes.blindness.derivatives import (
    DIVERGED,
    Along,
    Stepper,
    along,
    real_positions,
    slopes,
    targets_of,
)
from attnprobe.probes.blindness.directions import QUANTITIES, Claim, default_claims
from attnprobe.probes.blindness.padding import Padded
from attnprobe.probes.blindness.rows import BlindnessRow, Place, all_rows
from attnprobe.probes.interventions.profiles import dense_space
from attnprobe.probes.memory import MEMORY_LIMIT, most_padded, sequences_at_once
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.directions import Projector
from attnprobe.statistics.intervals import RESAMPLES
from attnprobe.streams import stream

LOSSES = ("label", "reconstruction")
CPU_BATCH = 50  # larger ones only fall out of the cache
ROUNDING = 1e-12  # in float64: slopes that differ by less, as a share of their size, are the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    rows: list[BlindnessRow]
    samples: np.ndarray  # (n,) those that were measured

    @property
    def answer(self) -> BlindnessRow:
        """That of the family that labels are claimed to be blind to."""
        return next(row for row in self.rows if row.blind is not None and row.family == "blind")

    @property
    def passed(self) -> bool:
        """Blind as far as was seen, from derivatives that agree with their second computation."""
        return bool(self.answer.blind)


def measure(
    subject: Subject,
    *,
    claims: Sequence[Claim] | None = None,
    n: int | None = 500,
    stepped: int = 200,
    shuffles: int = 999,
    level: float = 0.95,
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Certificate:
    """Certify every layer and head of a subject on ``n`` samples; up to 1024 positions.

    claims: ``default_claims`` by default; every direction is centred in its rows and scaled to unit norm. In padded
    sequences that is done over the real pairs, and column sums of a ``balanced`` one are taken off there. stepped: how
    many of the samples are also measured by finite steps, which give curvatures, check slopes and take most of the
    time. level: of the intervals, of the bounds (all of a family together) and of the decision, whose family-wise error
    is 1 - level. memory_limit: bytes beyond the weights and the data.
    Raises ConfigError if the shuffles are too few for the level or the memory too little, NotApplicableError where
    scores cannot matter, are too many, or nothing can be shuffled.
    """
    check_draws({"shuffles": shuffles}, level)
    samples = subject.draw(n, seed)
    labels = check_labels(subject, samples)
    check_enough(labels, level, flips=False)
    space, (layers, heads) = dense_space(subject), subject.shape
    chosen = {claim.direction.name: claim for claim in (claims or default_claims(space, seed))}
    require(any(claim.blind for claim in chosen.values()), "claims", "name no direction that labels should be blind to")
    exact = subject.double()
    projector = Projector(space, [claim.direction for claim in chosen.values()], layers=layers, heads=heads)
    padded = Padded(projector, [*chosen.values()])
    batch = samples_at_once(exact, samples, projector, padded, shuffles, memory_limit)
    parts = [part for _, part in batches(samples, batch)]
    found = {loss: np.concatenate([slopes(exact, loss, part, projector, padded) for part in parts]) for loss in LOSSES}
    check_slopes(found)
    where = {"slope": np.arange(len(samples)), "curvature": subset(len(samples), stepped, seed)}
    parts = [part for _, part in batches(samples[where["curvature"]], batch)]
    middle = {loss: np.concatenate([targets_of(exact, loss, part) for part in parts]) for loss in LOSSES}
    with_real = [(part, real_positions(exact, part)) for part in parts]
    places: list[Place] = []
    for d, name in enumerate(projector.names):
        matrices = projector.matrix(name)
        for layer, head in np.ndindex(layers, heads):
            delta = matrices[layer, head].to(exact.layers[0].device)
            stepper = Stepper(exact, name, (layer, head), delta, padded, with_real)
            slope = {loss: values[:, :, layer, head, d] for loss, values in found.items()}
            bent = {
                loss: along(stepper.outer(loss), middle[loss], slope[loss][where["curvature"]], stepper.size)
                for loss in LOSSES
            }
            places += places_of(chosen[name], layer, head, slope, bent)
            if progress is not None:
                progress(len(places) // len(QUANTITIES), layers * heads * len(projector.names))
    rows = all_rows(places, labels, where, Settings(shuffles=shuffles, level=level, seed=seed))
    return Certificate(rows=rows, samples=samples)


def subset(n: int, most: int, seed: int) -> np.ndarray:
    """Which of n samples take part in the finite steps, in ascending order."""
    return np.arange(n) if n <= most else np.sort(stream(seed, "finite steps").choice(n, most, replace=False))


def family(claim: Claim, quantity: str) -> str | None:
    if not claim.blind:
        return "control" if quantity == "slope" else None
    return "blind" if quantity in claim.blind else None


def places_of(claim: Claim, layer: int, head: int, slope: dict[str, np.ndarray], bent: dict[str, Along]) -> list[Place]:
    """Slope and curvature along a claim's direction; slope (sample, target) by loss."""
    places = []
    for quantity, values in (("slope", slope), ("curvature", {loss: b.curvature for loss, b in bent.items()})):
        place = Place(
            layer=layer,
            head=head,
            direction=claim.direction.name,
            quantity=quantity,
            family=family(claim, quantity),
            label=values["label"],
            reconstruction=values["reconstruction"][:, 0],
            difference={loss: b.difference[quantity] for loss, b in bent.items()},
            agrees={loss: b.agrees[quantity] for loss, b in bent.items()},
            rough={loss: b.rough for loss, b in bent.items()},
        )
        places.append(place)
    return places


def check_slopes(found: dict[str, np.ndarray]) -> None:
    """Raise NotApplicableError for slopes (sample, ...) by loss that are not finite, all zero, or the same in all
    samples.
    """
    for loss, values in found.items():
        if not np.isfinite(values).all():
            raise NotApplicableError(
                f"slopes of the {loss} loss are not finite; the model has diverged",
                hint=DIVERGED,
            )
    check_varying({f"slopes of the {loss} loss": values for loss, values in found.items()}, found, rounding=ROUNDING)


def samples_at_once(
    subject: Subject, samples: np.ndarray, projector: Projector, padded: Padded, shuffles: int, memory_limit: int
) -> int:
    """Samples per pass, from what one needs to be differentiated. ConfigError if the limit leaves no room for one."""
    one = most_padded(subject, samples)
    targets = 0

    def differentiate() -> None:
        nonlocal targets
        targets = sum(slopes(subject, loss, one, projector, padded).shape[1] for loss in LOSSES)

    sample = peak_bytes(differentiate)
    places = math.prod(subject.shape) * len(projector.names) * len(QUANTITIES)
    matrices = 8 * math.prod(subject.shape) * projector.space.size**2
    # Derivatives and their parts by sample; draws of the null and of the bootstrap; how often each takes each sample.
    draws = max(shuffles, RESAMPLES)
    kept = 8 * (places * (3 * len(samples) * targets + 6 * draws) + 3 * draws * len(samples)) + matrices
    at_once = sequences_at_once(subject, sample, memory_limit, kept=kept)
    return min(at_once, CPU_BATCH) if subject.layers[0].device.type == "cpu" else at_once
