"""Questions that have no answer are refused before, or as soon as, that is known."""

import math

import numpy as np

from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.probes.score_gradients import Method
from attnprobe.scores.directions import DENSE_LIMIT
from attnprobe.statistics.permutations import least_draws, log_relabellings

ROUNDING = 1e-5  # of values that differ by less, as a share of their size, nothing can be said


def check_options(length: int, *, method: Method, power: float, level: float, draws: dict[str, int]) -> None:
    """Raise NotApplicableError if the method is not for sequences so long; ConfigError if the power makes no sense, or
    if the smallest p-value that so many draws can give, 1 / (draws + 1), is above 1 - level.
    """
    if method == "dense" and length > DENSE_LIMIT:
        raise NotApplicableError(
            f"the dense method keeps {length} x {length} scores; use streamed",
            hint="leave out the dense method: the streamed one gives the same numbers",
        )
    require(0.5 <= power < 1, "power", f"must be at least 0.5 and below 1, got {power}")
    check_draws(draws, level)


def check_draws(draws: dict[str, int], level: float) -> None:
    """Raise ConfigError if the smallest p-value that so many draws can give is above 1 - level."""
    for what, count in draws.items():
        if count < least_draws(level):
            raise ConfigError(
                f"the number of {what} is {count}: no p-value could be as small as {1 - level:.3g}",
                hint=f"take at least {least_draws(level)}, or a lower level",
            )


def check_enough(labels: np.ndarray, level: float, *, flips: bool = True) -> None:
    """Raise NotApplicableError if there are so few relabellings, or sign flips if there are ``flips``, that no p-value
    could reach the level.

    Flipping all signs changes no size, so n sequences have 2^(n - 1) different sign flips.
    """
    ways = min(log_relabellings(labels), (len(labels) - 1) * math.log(2) if flips else math.inf)
    if ways < math.log(round(1 / (1 - level), 9)) - 1e-9:
        number = round(math.exp(ways))
        raise NotApplicableError(
            f"{len(labels)} sequences with these labels can be shuffled in {number} ways only: no p-value could be as "
            f"small as {1 - level:.3g}",
            hint="ask for more with --sequences, or for a lower --level",
        )


def check_varying(values: dict[str, np.ndarray], slopes: dict[str, np.ndarray], *, rounding: float) -> None:
    """Raise NotApplicableError if a loss does not depend on the scores, or the sequences are all the same to the model.

    values: what should differ between the sequences (n, ...), by what it is called; they are the same where they differ
    by less than ``rounding`` of their size. slopes (n, ...) of each loss.
    """
    for loss, found in slopes.items():
        if not found.any():
            raise NotApplicableError(
                f"the {loss} loss does not depend on the scores along any of the directions",
                hint="measure along other directions, or on another checkpoint",
            )
    for what, found in values.items():
        if float(np.ptp(found, axis=0).max()) <= rounding * float(np.abs(found).max()):
            raise NotApplicableError(
                f"all {len(found)} sequences have the same {what}: they are identical, or the model does not look at "
                "them",
                hint="measure on different sequences, or on another checkpoint",
            )


def check_labels(subject: Subject, samples: np.ndarray) -> np.ndarray:
    """The samples' classes; NotApplicableError if they have none, or all the same."""
    if subject.labels is None:
        raise NotApplicableError("these sequences have no labels", hint="measure on sequences that have labels")
    labels = subject.labels[samples]
    if labels.dtype.kind == "f":
        raise NotApplicableError(
            "this task's labels are numbers: the label null shuffles classes",
            hint="choose a checkpoint of a task with classes and single sequences",
        )
    if subject.per_sample > 1:
        raise NotApplicableError(
            "a label of this task belongs to a pair of sequences, a reconstruction to one",
            hint="choose a checkpoint of a task with classes and single sequences",
        )
    if len(labels) < 2:
        raise NotApplicableError(
            f"{len(labels)} labelled sequences: at least two are needed", hint="ask for more with --sequences"
        )
    if (labels < 0).any():
        raise NotApplicableError(
            "some sequences have no label (a negative one)", hint="measure on sequences that have labels"
        )
    if (labels == labels[0]).all():
        raise NotApplicableError(
            "all sequences have the same label: shuffling labels changes nothing",
            hint="ask for more sequences with --sequences, or take another --seed",
        )
    return labels
