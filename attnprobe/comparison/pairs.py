"""Paired intervals: over the test sequences of two checkpoints, and over the seeds of two arms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.launch.gains import gain
from attnprobe.probes.memory import pass_bytes, sequences_at_once
from attnprobe.probes.sequences import batches
from attnprobe.statistics.intervals import Interval, bootstrap
from attnprobe.statistics.shares import difference
from attnprobe.streams import stream

Row = dict[str, Any]
Outcome = dict[str, np.ndarray]  # "loss" (n,) and, where something can be right, "accuracy" (n,)
RECORDED = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_loss")


@torch.no_grad()
def outcomes(subject: Subject, samples: np.ndarray, loss: str, *, memory_limit: int) -> Outcome:
    """Loss and accuracy of every sample; NotApplicableError if a loss is not finite."""
    each = pass_bytes(subject, samples, lambda one: subject.loss(loss, one))
    size = sequences_at_once(subject, each, memory_limit)
    found: dict[str, list[torch.Tensor]] = {}
    for _, part in batches(samples, size):
        answer = subject.loss(loss, part)
        found.setdefault("loss", []).append(answer.value)
        if answer.accuracy is not None:
            found.setdefault("accuracy", []).append(answer.accuracy)
    outcome = {name: torch.cat(parts).double().cpu().numpy() for name, parts in found.items()}
    if not np.isfinite(outcome["loss"]).all():
        raise NotApplicableError("a loss is NaN or infinite", hint="did the training diverge?")
    return outcome


def over_sequences(a: Outcome, b: Outcome, *, split: str, seed: int | None, level: float, labels: bool) -> list[Row]:
    """B minus A on the same sequences. Shares of right answers by Bonett and Price's interval, which is not misled
    where few sequences change; all else by the studentised bootstrap.

    seed: of the runs, if they have the same. labels: an answer is right or wrong, not partly right.
    """
    rows = []
    for name in ("accuracy", "loss"):
        if name not in a or name not in b:
            continue
        one, other = a[name], b[name]
        shares = labels and name == "accuracy"
        if shares:
            estimate, low, high = difference(other, one, level)
            found = Interval(estimate=estimate, low=low, high=high, level=level, n=len(one), unit=name)
        else:
            found = bootstrap(other - one, level=level, generator=stream(0, "bootstrap")).interval(unit=name)
        row = _row(f"{split}_{name}", "sequences", seed, float(one.mean()), float(other.mean()), found)
        if shares:
            row |= {"only_a_right": int(np.sum(one > other)), "only_b_right": int(np.sum(other > one))}
        rows.append(row)
    return rows


def over_seeds(a: Mapping[int, Row], b: Mapping[int, Row], *, level: float) -> list[Row]:
    """B minus A of what the runs recorded, seed -> result, paired by the seeds that both have, by Student's t."""
    common = [seed for seed in a if seed in b]
    rows = []
    for number in RECORDED if common else ():
        own, other = ([side[seed] | {"seed": seed} for seed in common] for side in (a, b))
        if any(result[number] is None for result in (*own, *other)):
            continue
        found = gain(other, own, number, level=level)
        means_of = [float(np.mean([result[number] for result in results])) for results in (own, other)]
        seed = common[0] if len(common) == 1 else None
        rows.append(_row(number, "seeds", seed, means_of[0], means_of[1], found))
    return rows


def _row(quantity: str, over: str, seed: int | None, a: float, b: float, found: Interval) -> Row:
    return {
        "quantity": quantity, "over": over, "seed": seed, "a": a, "b": b, "estimate": found.estimate,
        "low": found.low, "high": found.high, "level": found.level, "n": found.n,
    }  # fmt: skip
