"""Intervals and p-values of what doses of profiles change."""

import numpy as np
import torch
from torch import Tensor

from attnprobe.calibration.outcomes import Outcome, covers, hardly_misses, p_value
from attnprobe.calibration.worlds import Replica
from attnprobe.probes import interventions
from attnprobe.probes.interventions.profiles import score_offsets, shuffled_profiles
from attnprobe.streams import stream

DOSE = -1.0
CONTROLS = 19  # the p-value of a rank among them is .05 in exactly one of twenty replicas
SHUFFLES = 300  # that the truth about controls rests on


def check(replica: Replica) -> list[Outcome]:
    """A profile of noise is like its shuffles, so the p-value of an injected one has a true null."""
    given = noise(replica) if replica.cell.data == "white" else None
    controls = 2 if given is None else CONTROLS
    found = interventions.dose_response(
        replica.subject, doses=(DOSE,), given=given, controls=controls, seed=replica.seed
    )
    truth = changes(replica, found.profile, given)
    rows = {(row.kind, row.quantity): row for row in found.rows}
    outcomes = []
    for (kind, name), value in truth.items():
        judge = hardly_misses if name == "accuracy.change" else covers
        outcomes.append(judge(f"{kind} {name}", rows[kind, name].interval, value))
    if given is not None:
        outcomes.append(p_value("injected - shuffled", rows["injected - shuffled", "loss.change"].p_value))
    return outcomes


def noise(replica: Replica) -> Tensor:
    """(layer, head, *offsets)"""
    subject = replica.subject
    values = stream(replica.seed, "noise profile").standard_normal((*subject.shape, *subject.space.layout.offsets))
    return torch.from_numpy(values)


@torch.no_grad()
def changes(replica: Replica, profile: Tensor, given: Tensor | None) -> dict[tuple[str, str], float]:
    """What the profile, as it was measured on the sample, does to the population; and one that was given, and the
    shuffles of the own one, a few sequences each.
    """
    population, samples = replica.population, np.arange(replica.population.samples)

    def loss(offsets: dict[int, Tensor] | None) -> Tensor:
        return population.loss("label", samples, score_offsets=offsets).value.double()

    before = population.loss("label", samples)
    after = population.loss("label", samples, score_offsets=score_offsets(population, DOSE * profile))
    assert before.accuracy is not None
    assert after.accuracy is not None
    alone, moved = before.value.double(), after.value.double()
    truth = {("own", "loss"): float(moved.mean()), ("own", "loss.change"): float((moved - alone).mean())}
    truth["own", "accuracy.change"] = float((after.accuracy - before.accuracy).double().mean())
    if given is not None:
        injected = loss(score_offsets(population, DOSE * given))
        truth["injected", "loss.change"] = float((injected - alone).mean())
        space = population.space
        shuffled = torch.cat(shuffled_profiles(space, profile, SHUFFLES, replica.seed + 1))
        every = DOSE * space.expand(shuffled.float(), slice(0, space.length))  # (shuffle, head, query, key)
        mixed = loss({0: every.repeat_interleave(len(samples) // SHUFFLES, 0)})
        truth["shuffled", "loss.change"] = float((mixed - alone).mean())
        truth["own - shuffled", "loss.change"] = float((moved - mixed).mean())
    return truth
