"""Intervals of the proximity probe, for one head of each model."""

from attnprobe.calibration.outcomes import Outcome, covers, row_of
from attnprobe.calibration.worlds import N, Replica
from attnprobe.probes import proximity


def check(replica: Replica) -> list[Outcome]:
    found = proximity.measure(replica.subject, n=N, null="none", seed=replica.seed)
    truth = replica.scores.proximity(found.radius)
    head = replica.head
    return [
        covers(quantity, row_of(found.rows, quantity, head).interval, float(values[head]))
        for quantity, values in truth.items()
    ]
