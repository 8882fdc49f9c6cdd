"""Intervals of what a dose of the own profile changes."""

import numpy as np
import torch

from attnprobe.calibration.outcomes import Outcome, covers
from attnprobe.calibration.worlds import Replica
from attnprobe.probes import interventions
from attnprobe.probes.interventions.profiles import score_offsets

DOSE = -1.0


def check(replica: Replica) -> list[Outcome]:
    """The truth is what the same profile, as it was measured on the sample, does to the population."""
    found = interventions.dose_response(replica.subject, doses=(DOSE,), controls=2, seed=replica.seed)
    population, samples = replica.population, np.arange(replica.population.samples)
    with torch.no_grad():
        offsets = score_offsets(population, DOSE * found.profile)
        moved = population.loss("label", samples, score_offsets=offsets).value.double()
        alone = population.loss("label", samples).value.double()
    truth = {"loss": moved.mean(), "loss.change": (moved - alone).mean()}
    rows = {row.quantity: row for row in found.rows if row.kind == "own"}
    return [covers(f"own {name}", rows[name].interval, float(value)) for name, value in truth.items()]
