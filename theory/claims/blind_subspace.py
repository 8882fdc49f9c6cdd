"""C1: label supervision is blind to all but L - 1 of the L (L - 1) effective score directions."""

import math
from functools import cache

import numpy as np

from theory import exact, predictions
from theory import measurements as measure
from theory.linear_readout import BIAS, linear
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    LabelProblem,
    Setting,
    blind_direction,
    centre_rows,
    key_direction,
    label_problem,
    periodic_direction,
    proximity_kernel,
    toeplitz_direction,
)

EXACT = 1e-14  # relative, for quantities that are equal in exact arithmetic
LOSSES: tuple[measure.Loss, ...] = ("logistic", "squared", "periodic")


def rows(setting: Setting) -> list[Row]:
    return [*_dimensions(setting), *_derivatives(setting), *_shares(setting), *_rate(), *_controls(setting)]


def _dimensions(setting: Setting) -> list[Row]:
    """Dimensions by exact rational elimination, at small lengths and at the requested one up to 8."""
    found = []
    for length in sorted({3, 4, 5, 7, setting.within(3, 8).length}):
        effective, visible = exact.effective_dimension(length), exact.visible_dimension(length)
        counts = [
            ("effective directions", predictions.effective_dimension(length), effective),
            ("visible directions", predictions.visible_dimension(length), visible),
            ("blind directions", predictions.blind_dimension(length), exact.blind_dimension(length)),
            ("visible fraction", predictions.visible_fraction(length), visible / effective),
        ]
        note = "rank in exact rational arithmetic"
        found += [agree("C1", f"{name}, L = {length}", a, b, 1e-15, note) for name, a, b in counts]
    return found


def _label_gradient(problem: LabelProblem, scores: Array, pooling: measure.Pooling = "mean") -> Array:
    return measure.gradient(measure.label_losses(linear(problem, pooling), problem.inputs, problem.labels), scores)


def _derivatives(setting: Setting) -> list[Row]:
    rng, length = setting.rng("C1 derivatives"), setting.length
    problem, uniform = label_problem(setting, rng), np.zeros((length, length))
    direction = rng.standard_normal((length, length))
    outputs = problem.projected.mean(1) + BIAS
    found = []
    for loss in LOSSES:
        predicted = predictions.label_slope(outputs, problem.labels, loss) * predictions.label_derivative(
            direction, problem.projected
        )
        function = measure.label_losses(linear(problem), problem.inputs, problem.labels, loss)
        measured = measure.derivative(function, uniform, direction)
        scale = EXACT * float(np.linalg.norm(problem.projected)) / length
        found.append(
            agree("C1", f"derivative of the {loss} loss, random direction", predicted, measured, scale, "autograd")
        )

    labels = _label_gradient(problem, uniform)
    note = "label gradient by autograd, relative to its norm"
    found.append(agree("C1", "spread of the gradient's rows", 0, measure.row_spread(labels), EXACT, note))
    kernels = [proximity_kernel(length, tau) for tau in (0.5, 1.5, 8.0)] + [rng.standard_normal(length)]
    periodic = max(_cosine(labels, periodic_direction(kernel)) for kernel in kernels)
    found.append(agree("C1", "gradient along periodic directions", 0, periodic, EXACT, note + "; largest of 4 kernels"))
    blind = max(_cosine(labels, blind_direction(length, rng)) for _ in range(8))
    found.append(agree("C1", "gradient along random blind directions", 0, blind, EXACT, note + "; largest of 8"))

    # The converse: a direction with non-zero column sums is seen by the data set made for it.
    sums = centre_rows(direction).sum(0)
    witness = measure.LinearHead(value=np.eye(1), weight=np.ones(1))
    measured = measure.derivative(lambda s: witness(s, measure.tensor(sums[None, :, None])), uniform, direction)[0]
    predicted = predictions.witness_derivative(direction)
    scale = EXACT * float(np.linalg.norm(centre_rows(direction)) * np.linalg.norm(sums)) / length**1.5
    found.append(agree("C1", "derivative on the witness data", predicted, measured, scale, "autograd"))
    return found


def _cosine(gradient: Array, direction: Array) -> float:
    centred = centre_rows(direction)
    return float(abs((gradient * centred).sum()) / (np.linalg.norm(gradient) * np.linalg.norm(centred)))


def visible_basis(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array]:
    """Singular values, and right singular vectors, of the label gradients of L + 4 random data sets, stacked."""
    uniform = np.zeros((setting.length, setting.length))
    gradients = [_label_gradient(label_problem(setting, rng, 2), uniform).ravel() for _ in range(setting.length + 4)]
    stacked = np.stack([gradient / np.linalg.norm(gradient) for gradient in gradients])
    _, values, vectors = np.linalg.svd(stacked, full_matrices=False)
    return values, vectors


def _shares(setting: Setting) -> list[Row]:
    """The visible subspace once more, now as the span of label gradients that autograd returns."""
    small = setting.within(3, 24)
    length, rng = small.length, setting.rng("C1 shares")
    values, vectors = visible_basis(small, rng)
    rank = int((values > 1e-9 * values[0]).sum())
    name = f"rank of label gradients, L = {length}"
    found = [agree("C1", name, predictions.visible_dimension(length), rank, 0, "random data sets, singular values")]
    directions = {
        "edged proximity": toeplitz_direction(length, 1.5),
        "random direction": rng.standard_normal((length, length)),
        "key-only direction": key_direction(rng.standard_normal(length)),
    }
    for name, direction in directions.items():
        centred = centre_rows(direction)
        measured = ((vectors[:rank] @ centred.ravel()) ** 2).sum() / (centred**2).sum()
        note = "projection on the span of label gradients"
        predicted = predictions.visible_share(direction)
        found.append(agree("C1", f"visible share, {name}, L = {length}", predicted, measured, 1e-9, note))
    return found


@cache
def edged_share(length: int, tau: float) -> float:
    """Visible share of the edged proximity direction, measured: what is lost by centring the columns as well."""
    centred = centre_rows(toeplitz_direction(length, tau))
    return float(1 - ((centred - centred.mean(0)) ** 2).sum() / (centred**2).sum())


def _rate() -> list[Row]:
    lengths, tau = [128, 256, 512, 1024], 1.5
    shares = [edged_share(length, tau) for length in lengths]
    slope = measure.log_slope(np.array(lengths), np.array(shares))
    limit = predictions.visible_share_limit(tau)
    note = "edged proximity, tau = 1.5, L = 128 .. 1024"
    return [
        agree("C1", "exponent of the visible share over L", -2, slope, 0.02, "log-log slope; " + note),
        agree("C1", "L^2 times the visible share", limit, lengths[-1] ** 2 * shares[-1], 0.02 * limit, "L = 1024"),
    ]


def _controls(setting: Setting) -> list[Row]:
    rng, length = setting.rng("C1 controls"), setting.length
    problems = [label_problem(setting, rng, 4) for _ in range(8)]
    uniform = np.zeros((length, length))

    def spread(roughness: float, pooling: measure.Pooling) -> float:
        """Spread of the rows of label gradients at random scores of a given size, a new draw per problem."""
        return _rms(
            [
                measure.row_spread(_label_gradient(problem, roughness * rng.standard_normal((length, length)), pooling))
                for problem in problems
            ]
        )

    gradients = [_label_gradient(problem, uniform) for problem in problems]
    # Along a random key-only direction the squared cosine is 1 / (L - 1) on average.
    cosines = [_cosine(each, key_direction(rng.standard_normal(length))) for each in gradients for _ in range(4)]
    note = "would be 0 if blind; must exceed the margin"
    peaks = [_max_pooling_response(problem) for problem in problems]
    return [
        differ(
            "C1", "key-only direction", 0, _rms(cosines) * math.sqrt(length - 1), 0.25, note + "; cosine x sqrt(L-1)"
        ),
        differ("C1", "non-uniform attention", 0, spread(1.0, "mean"), 0.03, note),
        differ("C1", "readout of the last position", 0, spread(0.0, "last"), 0.03, note),
        differ("C1", "max pooling, periodic direction", 0, _rms(peaks), 0.03, note + "; one-sided derivative"),
    ]


def _max_pooling_response(problem: LabelProblem) -> float:
    """One-sided derivative of max pooling along a proximity direction, against that of a typical token.

    At uniform attention all tokens tie, so max pooling has one-sided derivatives only: a difference quotient. One
    channel is read, as the responses of several channels can cancel.
    """
    length, dim = problem.inputs.shape[1:]
    step, direction = 1e-6, periodic_direction(proximity_kernel(length))
    head = measure.LinearHead(value=problem.value, weight=np.eye(dim)[0], pooling="max")
    inputs = measure.tensor(problem.inputs)
    quotient = measure.ray(lambda s: head(s, inputs), np.zeros((length, length)), direction, np.array([step]))[0] / step
    tokens = centre_rows(direction) @ problem.inputs @ problem.value[:, 0] / length
    return _rms(quotient / np.sqrt((tokens**2).mean(1)))


def _rms(numbers: Array | list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(numbers))))
