"""Intervals of the shares of score variance, for one head of each model."""

from attnprobe.calibration.outcomes import Outcome, covers, row_of
from attnprobe.calibration.worlds import N, Replica
from attnprobe.probes import decomposition


def check(replica: Replica) -> list[Outcome]:
    found = decomposition.measure(replica.subject, n=N, seed=replica.seed)
    truth = replica.scores.shares()
    head = replica.head
    return [
        covers(quantity, row_of(found.rows, quantity, head).interval, float(values[head]))
        for quantity, values in truth.items()
    ]
