"""Effects of known size, put where a test should find them: what share of replicas does it find them in?

All in the same world, sinusoidal positions, full attention and white noise; sizes grow.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from attnprobe.calibration.checks.alignment import SHUFFLES, direction
from attnprobe.calibration.outcomes import Outcome, detects, row_of
from attnprobe.calibration.truths import projected, score_gradients
from attnprobe.calibration.worlds import CLASSES, Cell, N, Replica, replica
from attnprobe.probes import alignment
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream

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
    world = with_labels(replica(WORLD, number, seed=seed), size)
    found = alignment.measure(
        world.subject, directions=[direction(world)], shuffles=SHUFFLES, null="none", groups=1, seed=world.seed
    )
    return [detects("label.dependent.mean", row_of(found.rows, "label.dependent.mean", world.head).p_value)]


def with_labels(world: Replica, size: float) -> Replica:
    """Labels drawn with log odds of ``size`` times the standardised gradients of their logits along the direction."""
    logits = [score_gradients(world.subject, "label", target) for target in range(CLASSES)]
    gradients = [projected(gradient, world.along)[:, world.head] for gradient in logits]
    standardised = np.stack([(g - g.mean()) / g.std() for g in gradients], 1)
    noise = stream(world.seed, "planted labels").gumbel(size=standardised.shape)
    chosen = torch.from_numpy((size * standardised + noise).argmax(1))
    sample = dataclasses.replace(world.sample, labels=chosen)
    return dataclasses.replace(world, sample=sample)


PLANTED: dict[str, Effect] = {
    "shift": Effect(probe="control", what="mean in standard deviations", sizes=(0.2, 0.4, 0.6), measure=shift),
    "labels": Effect(
        probe="alignment", what="log odds of a label per sd of its gradient", sizes=(0.25, 0.5, 1.0), measure=labels
    ),
}
