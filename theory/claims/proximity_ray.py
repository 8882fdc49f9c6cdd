"""C2: along a periodic ray the label output never changes; along other blind directions it changes at second order."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from theory import measurements as measure
from theory import predictions
from theory.linear_readout import BIAS, linear
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    LabelProblem,
    Setting,
    blind_direction,
    label_problem,
    periodic_direction,
    proximity_kernel,
    toeplitz_direction,
)

STEPS = np.array([1e-3, 3e-3, 1e-2])  # for fitted exponents
FAR = np.array([-30.0, -3.0, -0.3, 0.01, 0.1, 1.0, 10.0, 100.0])  # for invariance at any distance
EXACT = 1e-14  # relative, for quantities that are equal in exact arithmetic
FLOOR = 1e-12  # a change of the output below this counts as rounding; the output is of order 1
MARGIN = 1e-5  # a relative change of the output that rounding, 1e-16, cannot bring about


def rows(setting: Setting) -> list[Row]:
    rng, length = setting.rng("C2"), setting.length
    problem = label_problem(setting, rng)
    uniform = np.zeros((length, length))
    start = periodic_direction(rng.standard_normal(length))
    ray = periodic_direction(proximity_kernel(length))
    return [
        *_global(problem, start, ray, rng.permutation(ray)),
        *_orders(problem, rng, uniform),
        *_controls(problem, rng, uniform, start, ray),
    ]


def outputs(problem: LabelProblem, pooling: measure.Pooling = "mean") -> Callable[[Tensor], Tensor]:
    """The outputs f (n,) of the linear head as a function of the scores."""
    head = linear(problem, pooling)
    return lambda scores: head(scores, measure.tensor(problem.inputs))


def changes(problem: LabelProblem, start: Array, direction: Array, steps: Array) -> Array:
    """Root-mean-square change of the output over the sequences, per step."""
    return np.sqrt((measure.ray(outputs(problem), start, direction, steps) ** 2).mean(1))


def _global(problem: LabelProblem, start: Array, ray: Array, shuffled: Array) -> list[Row]:
    predicted = predictions.doubly_stochastic_output(problem.projected, BIAS)
    scale = EXACT * float(np.linalg.norm(problem.projected))
    found = []
    for name, base, direction in [
        ("periodic ray from a periodic start", start, ray),
        # Circulant up to the order of its rows: not periodic, yet doubly stochastic all along its ray.
        ("row-shuffled periodic ray from uniform", 0 * start, shuffled),
    ]:
        measured = [measure.values(outputs(problem), base + t * direction) for t in FAR]
        worst = max(measured, key=lambda output: float(np.linalg.norm(output - predicted)))
        found.append(agree("C2", f"output on the {name}", predicted, worst, scale, "worst of 8 steps, |t| <= 100"))
    size = np.maximum(changes(problem, start, ray, STEPS), FLOOR)
    note = f"log-log slope, changes below {FLOOR:g} count as {FLOOR:g}"
    found.append(agree("C2", "order of the change, periodic ray", 0, measure.log_slope(STEPS, size), 0.1, note))
    return found


def _orders(problem: LabelProblem, rng: np.random.Generator, uniform: Array) -> list[Row]:
    length, found = len(uniform), []
    visible = rng.standard_normal((length, length))
    for name, order, direction in [("blind", 2, blind_direction(length, rng)), ("visible", 1, visible)]:
        slope = measure.log_slope(STEPS, changes(problem, uniform, direction, STEPS))
        note = "log-log slope, rms over 16 sequences, t = 1e-3 .. 1e-2"
        found.append(agree("C2", f"order of the change, random {name} direction", order, slope, 0.1, note))
        predicted = predictions.label_curvature(direction, problem.projected)
        measured = measure.second_derivative(outputs(problem), uniform, direction)
        scale = EXACT * float(np.linalg.norm(problem.projected))
        found.append(agree("C2", f"second derivative, random {name} direction", predicted, measured, scale, "autograd"))
    return found


def _controls(problem: LabelProblem, rng: np.random.Generator, uniform: Array, start: Array, ray: Array) -> list[Row]:
    """Each breaks one assumption: the relative change of the output after one unit of the ray must be visible."""
    length = len(uniform)
    step, scale = np.array([1.0]), float(np.sqrt((problem.projected.mean(1) ** 2).mean()))

    def change(function: Callable[[Tensor], Tensor], base: Array, direction: Array) -> float:
        return float(np.sqrt((measure.ray(function, base, direction, step) ** 2).mean())) / scale

    linear, rough = outputs(problem), rng.standard_normal((length, length))
    edged = toeplitz_direction(length, 1.5)
    note = "would be 0 on an invariant ray; must exceed the margin"
    return [
        differ("C2", "non-periodic start", 0, change(linear, rough, ray), MARGIN, note),
        differ("C2", "proximity with edges", 0, change(linear, uniform, edged), MARGIN / length, note),
        differ("C2", "readout of the last position", 0, change(outputs(problem, "last"), start, ray), MARGIN, note),
        differ("C2", "max pooling", 0, change(outputs(problem, "max"), start, ray), MARGIN, note),
    ]
