"""C3: under label supervision, attention that does not depend on the query never comes to depend on it."""

import numpy as np

from theory import flows, predictions
from theory import measurements as measure
from theory.coded_scores import form_gradient
from theory.linear_readout import BIAS, linear
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    LabelProblem,
    Setting,
    decaying,
    label_problem,
    periodic_direction,
    position_codes,
    second_moments,
    sigma_points,
)

EXACT = 1e-14  # relative, for quantities that are equal in exact arithmetic
TRAINED = 1e-11  # the same after training, which may amplify rounding: K is invariant, not attracting
MARGIN = 1e-3  # a query dependence that rounding cannot bring about


def rows(setting: Setting) -> list[Row]:
    return [*at_start(setting), *_training(setting), *_controls(setting)]


def at_start(setting: Setting) -> list[Row]:
    """Gradients, and the beginning of a flow: the rows that need no training."""
    return [*_gradients(setting), *_codes(setting), *_departure(setting)]


def neurons(problem: LabelProblem, rng: np.random.Generator, *, residual: bool) -> measure.NeuronHead:
    """A tanh readout of each token, of its attention output alone or together with its own input."""
    width, dim = 8, len(problem.weight)
    own, mixed = rng.standard_normal((2, width, dim)) / np.sqrt(dim)
    return measure.NeuronHead(
        value=problem.value,
        own=own * residual,
        mixed=mixed * 2,
        offset=rng.standard_normal(width) / 2,
        weight=rng.standard_normal(width),
    )


def reduced_gradient(profile: Array, problem: LabelProblem) -> Array:
    """(3.1) for the linear head and the logistic loss, at scores u_j: L numbers in place of L^2."""
    weights = np.exp(profile - profile.max())
    outputs = problem.projected @ weights / weights.sum() + BIAS
    slopes = predictions.label_slope(outputs, problem.labels, "logistic")
    return predictions.query_free_gradient(profile, problem.projected, slopes)


def _gradients(setting: Setting) -> list[Row]:
    rng = setting.rng("C3 gradients")
    problem = label_problem(setting, rng)
    profile, shift = rng.standard_normal((2, setting.length))
    scores = profile[None, :] + shift[:, None]
    measured = measure.gradient(measure.label_losses(linear(problem), problem.inputs, problem.labels), scores)
    predicted = np.tile(reduced_gradient(profile, problem), (setting.length, 1))
    scale = EXACT * float(np.linalg.norm(problem.projected)) / setting.length
    note = "autograd at random scores u_j + r_i"
    found = [
        agree("C3", "label gradient at query-free scores", predicted, measured, scale, note),
        agree("C3", "spread of its rows", 0, measure.row_spread(measured), EXACT, note + ", relative to its norm"),
    ]
    head = neurons(problem, rng, residual=False)
    spread = measure.row_spread(measure.gradient(measure.label_losses(head, problem.inputs, problem.labels), scores))
    return [*found, agree("C3", "the same, tanh readout without residual stream", 0, spread, EXACT, note)]


def _codes(setting: Setting) -> list[Row]:
    """Scores P M P^T made from position codes: the gradient on M = W_Q W_K^T at M = 0."""
    rng = setting.rng("C3 codes")
    problem = label_problem(setting, rng)
    row = reduced_gradient(np.zeros(setting.length), problem)
    losses = measure.label_losses(linear(problem), problem.inputs, problem.labels)
    measured, predicted = {}, {}
    for centred in (True, False):
        codes = position_codes(setting.length, 2, centred=centred)
        measured[centred], predicted[centred] = form_gradient(losses, codes), predictions.codes_gradient(codes, row)
    scale = EXACT * setting.length**1.5 * float(np.linalg.norm(row))
    singular = np.linalg.svd(measured[False], compute_uv=False)
    note = "autograd at M = 0"
    return [
        agree("C3", "gradient on M, uncentred codes", predicted[False], measured[False], scale, note),
        agree("C3", "its second singular value over the first", 0, singular[1] / singular[0], 1e-12, note),
        agree("C3", "gradient on M, centred codes", 0, np.linalg.norm(measured[True]), scale, note),
        differ(
            "C3", "uncentred codes", 0, np.linalg.norm(measured[False]), 1e6 * scale, "0 for centred codes; must not be"
        ),
    ]


def _training(setting: Setting) -> list[Row]:
    """Flow, descent and Adam from random scores in K, against the L-dimensional system that (3.1) predicts."""
    small = setting.within(3, 12)
    rng, length = small.rng("C3 training"), small.length
    problem = label_problem(small, rng)
    profile = rng.standard_normal(length) / 2
    start = np.tile(profile, (length, 1))
    loss = measure.label_losses(linear(problem), problem.inputs, problem.labels)
    times = horizon(length) * np.linspace(0.1, 1, 10)
    path = flows.gradient_flow(loss, start, times)
    reduced = flows.integrate(lambda u: -reduced_gradient(u, problem), profile, times, "LSODA")[-1]
    moved = float(np.linalg.norm(path[-1] - start))
    predicted = np.tile(reduced, (length, 1)) - start
    worst = max(flows.query_dependence(scores) for scores in path) / moved
    note = "distance from K over the distance moved"
    found = [
        agree(
            "C3",
            f"movement of the scores in gradient flow, L = {length}",
            predicted,
            path[-1] - start,
            1e-5 * moved,
            "all L^2 scores (DOP853) against L (LSODA)",
        ),
        agree(
            "C3", f"query dependence in gradient flow, L = {length}", 0, worst, TRAINED, note + "; worst of 10 times"
        ),
    ]
    # Steps small enough to converge: beyond, descent is chaotic, and it amplifies what rounding puts off K.
    steps, rate = 120, 0.5 * length
    for _ in range(steps):
        profile = profile - rate * reduced_gradient(profile, problem)
    moves = {
        "descent": flows.descend(loss, start, rate, steps) - start,
        "Adam": flows.descend_with_adam(loss, start, 0.05, steps) - start,
    }
    tolerance = 1e-8 * float(np.linalg.norm(moves["descent"]))
    predicted, name = np.tile(profile, (length, 1)) - start, f"movement of the scores in {steps} steps of descent"
    found.append(
        agree("C3", f"{name}, L = {length}", predicted, moves["descent"], tolerance, "all L^2 scores against L")
    )
    for name, move in moves.items():
        dependence = flows.query_dependence(move) / float(np.linalg.norm(move))
        quantity = f"query dependence after {steps} steps of {name}, L = {length}"
        found.append(agree("C3", quantity, 0, dependence, TRAINED, note))
    return found


def horizon(length: int) -> float:
    """A time in which label gradients, of order 1/L^2, move the scores by order 1."""
    return 15.0 * length**2


def _departure(setting: Setting) -> list[Row]:
    small = setting.within(3, 12, widest=3)
    found = []
    for kind, inputs in [
        ("stationary data", sigma_points(periodic_direction(decaying(small.length, 0.6)), small.dim)),
        ("data without symmetry", label_problem(small, small.rng("C3 departure"), 3).inputs),
    ]:
        loss = measure.reconstruction_losses(inputs, small.gain)
        times = small.length**2 / small.gain * np.array([1e-4, 3e-4, 1e-3])
        path = flows.gradient_flow(loss, np.zeros((small.length, small.length)), times)
        distances = np.array([flows.query_dependence(scores) for scores in path])
        gradient = predictions.reconstruction_gradient(second_moments(inputs), small.gain)
        rate = predictions.departure_rate(gradient)
        note = "flow of the reconstruction loss from uniform attention"
        name, slope = f"of reconstruction leaving K, {kind}, {small.size}", measure.log_slope(times, distances)
        found += [
            agree("C3", f"order in t {name}", 1, slope, 0.02, "log-log slope; " + note),
            agree("C3", f"rate {name}", rate, distances[0] / times[0], 0.01 * rate, note),
        ]
    return found


def _controls(setting: Setting) -> list[Row]:
    small = setting.within(3, 12)
    rng, length = small.rng("C3 controls"), small.length
    problem = label_problem(small, rng)
    start = np.zeros((length, length))
    times = horizon(length) * np.array([0.05])

    def dependence(head: measure.Head, begin: Array) -> float:
        path = flows.gradient_flow(measure.label_losses(head, problem.inputs, problem.labels), begin, times)
        return (flows.query_dependence(path[-1]) - flows.query_dependence(begin)) / float(
            np.linalg.norm(path[-1] - begin)
        )

    rough = rng.standard_normal((length, length))
    slanted = measure.gradient(measure.label_losses(linear(problem), problem.inputs, problem.labels), rough)
    note = "would be 0 inside K; must exceed the margin"
    return [
        differ(
            "C3",
            f"tanh readout with residual stream, L = {length}",
            0,
            dependence(neurons(problem, rng, residual=True), start),
            MARGIN,
            note + "; gradient flow",
        ),
        differ(
            "C3",
            f"readout of the last position, L = {length}",
            0,
            dependence(linear(problem, "last"), start),
            MARGIN,
            note + "; gradient flow",
        ),
        differ(
            "C3",
            f"start outside K, L = {length}",
            0,
            measure.row_spread(slanted),
            MARGIN,
            note + "; spread of gradient rows",
        ),
    ]
