"""The readout that claims C1, C2 and C3 are about: a linear one of the mean token."""

from theory import measurements as measure
from theory.setting import LabelProblem

BIAS = 0.3  # any that is not zero would do


def linear(problem: LabelProblem, pooling: measure.Pooling = "mean") -> measure.LinearHead:
    """That of the problem; other poolings are for negative controls."""
    return measure.LinearHead(value=problem.value, weight=problem.weight, bias=BIAS, pooling=pooling)
