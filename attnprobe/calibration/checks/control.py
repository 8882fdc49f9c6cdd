"""Tests whose error rate is known exactly: they say whether the harness itself measures what it should."""

from attnprobe.calibration.outcomes import Outcome, covers, p_value
from attnprobe.calibration.worlds import N, Replica
from attnprobe.statistics.intervals import bootstrap, student_interval
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream

SEEDS = 5


def check(replica: Replica) -> list[Outcome]:
    """Sign flips, the bootstrap of a mean, and Student's interval of five, which paired gains have, on Gaussian numbers
    instead of a model's or of runs'.
    """
    numbers = stream(replica.seed, "control").standard_normal(N)
    p = sign_flip_p_value(numbers, permutations=199, generator=stream(replica.seed, "control flips"))
    band = bootstrap(numbers, generator=stream(replica.seed, "control bootstrap"))
    few = student_interval(numbers[:SEEDS].tolist(), unit="")
    return [
        p_value("sign flips, Gaussian", float(p)),
        covers("mean, Gaussian", band.interval(unit=""), 0.0),
        covers("mean of five, Gaussian", few, 0.0),
    ]
