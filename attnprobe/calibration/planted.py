"""Effects of known size, put where a test should find them: what share of replicas does it find them in?

All in the same world, sinusoidal positions, full attention and white noise; sizes grow.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import torch

from attnprobe.calibration.checks.alignment import ORDERS, SHUFFLES, direction
from attnprobe.calibration.checks.interventions import CONTROLS
from attnprobe.calibration.checks.proximity import DRAWS
from attnprobe.calibration.outcomes import Outcome, detects, row_of
from attnprobe.calibration.truths import distances, projected, score_gradients
from attnprobe.calibration.worlds import CLASSES, Cell, N, Replica, replica
from attnprobe.capture import Subject
from attnprobe.capture.ours import attentions
from attnprobe.probes import alignment, blindness, interventions, proximity
from attnprobe.probes.alignment.labels import label_dependence
from attnprobe.probes.blindness.rows import RATIO
from attnprobe.probes.interventions.profiles import score_offsets
from attnprobe.probes.rows import Measurement
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream
from attnprobe.tasks import Split

NEAR = 4.0  # score of a position itself beyond the farthest, in the profile that labels follow
WORLD = Cell(positions="sinusoidal", visibility="full", data="white")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    probe: str
    what: str  # is planted, and in which unit
    sizes: tuple[float, float, float]
    measure: Callable[[int, float, int], list[Outcome]]  # number of the replica, size, seed


def planted_name(effect: str, size: float) -> str:
    return f"{effect} {size:g}"


def shift(number: int, size: float, seed: int) -> list[Outcome]:
    """Gaussian numbers whose mean is not zero."""
    numbers = stream(seed, "shift", str(number)).standard_normal(N) + size
    flips = stream(seed, "shift", str(number), "flips")
    p = sign_flip_p_value(numbers, permutations=SHUFFLES, generator=flips)
    return [detects("sign flips, Gaussian", float(p))]


def labels(number: int, size: float, seed: int) -> list[Outcome]:
    """The bounds of all heads should hold their true ratios."""
    world = with_labels(replica(WORLD, number, seed=seed), size)
    found = alignment.measure(
        world.subject, directions=[direction(world)], shuffles=SHUFFLES, null="none", groups=1, seed=world.seed
    )
    return [
        detects("label.dependent.mean", row_of(found.rows, "label.dependent.mean", world.head).p_value),
        any_too_low(found.select("label_to_reconstruction"), world),
    ]


def seen_labels(number: int, size: float, seed: int) -> list[Outcome]:
    """The certificate should not call them blind, and its bounds should hold the true ratios of all heads."""
    world = with_labels(replica(WORLD, number, seed=seed), size)
    claims = [blindness.Claim(direction=direction(world))]
    found = blindness.measure(world.subject, claims=claims, n=N, shuffles=SHUFFLES, seed=world.seed)
    rows = [row for row in found.rows if row.loss == RATIO and row.quantity == "slope"]
    return [detects("not blind", found.answer.family_p), any_too_low(rows, world)]


def any_too_low(rows: Iterable[Measurement], world: Replica) -> Outcome:
    """Whether any head's bound on label-dependent mean gradient / that of reconstruction misses the population's."""
    dependent = label_dependence(logit_gradients(world.population, world.along), world.rest.labels.numpy())
    true = np.abs(dependent.mean(0) / projected(world.gradients["reconstruction"], world.along).mean(0))
    wrong = any(row.interval.high < true[row.head] for row in rows)
    return Outcome(quantity="label / reconstruction above its bound", kind="verdict", value=float(wrong))


def with_labels(world: Replica, size: float) -> Replica:
    """Labels drawn with log odds of ``size`` times the standardised gradients of their logits along the direction."""

    def relabelled(subject: Subject, split: Split, name: str) -> Split:
        gradients = logit_gradients(subject, world.along)[..., world.head]
        standardised = (gradients - gradients.mean(0)) / gradients.std(0)
        noise = stream(world.seed, "planted labels", name).gumbel(size=standardised.shape)
        return dataclasses.replace(split, labels=torch.from_numpy((size * standardised + noise).argmax(1)))

    return dataclasses.replace(
        world,
        sample=relabelled(world.subject, world.sample, "sample"),
        rest=relabelled(world.population, world.rest, "population"),
    )


def logit_gradients(subject: Subject, along: torch.Tensor) -> np.ndarray:
    """Along a unit direction (sequence, class, head)."""
    return np.stack([projected(score_gradients(subject, "label", c), along) for c in range(CLASSES)], 1)


def near_scores(number: int, size: float, seed: int) -> list[Outcome]:
    """W_Q and W_K of one head read a slow pair of the sinusoids, whose inner product falls with the offset."""
    world = replica(WORLD, number, seed=seed)
    attention, head = attentions(world.model)[0], world.head
    first = head * attention.q.weight.shape[0] // world.model.config.heads
    with torch.no_grad():
        for weight in (attention.q.weight, attention.k.weight):
            weight[first : first + 2, 2:4] += size * torch.eye(2)
    found = proximity.measure(world.subject, n=N, null="init", draws=DRAWS, seed=world.seed)
    largest = row_of(found.rows, "proximity_bias.max", None)
    return [
        detects("proximity_bias, init", row_of(found.rows, "proximity_bias", head).p_value),
        detects("proximity_bias.max, init", largest.p_value),
    ]


def local_data(number: int, size: float, seed: int) -> list[Outcome]:
    """Gaussian fields on the grid whose correlation falls as exp(-distance / size)."""
    world = replica(WORLD, number, seed=seed)
    root = torch.linalg.cholesky(torch.exp(-distances(world.subject) / size)).float()
    smooth = dataclasses.replace(world.sample, inputs=root @ world.sample.inputs)
    world = dataclasses.replace(world, sample=smooth)
    found = alignment.measure(
        world.subject, directions=[direction(world, "contrast")], shuffles=SHUFFLES, null="positions",
        orders=ORDERS, groups=1, seed=world.seed,
    )  # fmt: skip
    return [detects("reconstruction.positions", row_of(found.rows, "reconstruction.positions", world.head).p_value)]


def profiled_labels(number: int, size: float, seed: int) -> list[Outcome]:
    """Labels that follow what a near profile, injected, does to the logits: injecting it lowers the loss."""
    world = replica(WORLD, number, seed=seed)
    subject, samples = world.subject, np.arange(N)
    near = torch.exp(-subject.space.layout.distance()).expand(*subject.shape, *subject.space.layout.offsets)
    given = NEAR * near.double()
    with torch.no_grad():
        logits = [
            subject.loss("label", samples, score_offsets=o).targets for o in (None, score_offsets(subject, given))
        ]
    change = (logits[1] - logits[0]).double().numpy()
    change = (change - change.mean(0)) / change.std(0)
    drawn = stream(world.seed, "profiled labels").gumbel(size=change.shape)
    world = dataclasses.replace(
        world,
        sample=dataclasses.replace(world.sample, labels=torch.from_numpy((size * change + drawn).argmax(1))),
    )
    found = interventions.dose_response(world.subject, doses=(1.0,), given=given, controls=CONTROLS, seed=world.seed)
    row = next(r for r in found.rows if r.kind == "injected - shuffled" and r.quantity == "loss.change")
    return [detects("injected - shuffled", row.p_value)]


ODDS = "log odds of a label per sd of its gradient"

PLANTED: dict[str, Effect] = {
    "shift": Effect(probe="control", what="mean in standard deviations", sizes=(0.2, 0.4, 0.6), measure=shift),
    "near-scores": Effect(
        probe="proximity", what="weight of a slow sinusoid in W_Q and W_K", sizes=(0.25, 0.5, 1.0), measure=near_scores
    ),
    "labels": Effect(probe="alignment", what=ODDS, sizes=(0.25, 0.5, 1.0), measure=labels),
    "local-data": Effect(
        probe="alignment", what="correlation length in pixels", sizes=(0.5, 1.0, 2.0), measure=local_data
    ),
    "seen-labels": Effect(probe="certify", what=ODDS, sizes=(0.25, 0.5, 1.0), measure=seen_labels),
    "profiled-labels": Effect(
        probe="intervene",
        what="log odds of a label per sd of what a near profile does to its logit",
        sizes=(1.0, 4.0, 16.0),
        measure=profiled_labels,
    ),
}
