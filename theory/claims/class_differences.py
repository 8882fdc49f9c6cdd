"""C5: with a non-linear readout labels see what differs between classes, reconstruction what they share on average."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from theory import measurements as measure
from theory import predictions
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    LabelProblem,
    Setting,
    contrast_kernel,
    gaussian_sequences,
    label_problem,
    lag_one,
    periodic_direction,
    proximity_kernel,
    sigma_points,
    sphere,
)

EXACT = 1e-13  # relative, for quantities that are equal in exact arithmetic
SMALL = 1e-6  # scale of a readout that stands for f -> 0; the error of that is of the same relative order
STRENGTH = 0.4  # lag-1 correlation


def rows(setting: Setting) -> list[Row]:
    return [
        *_any_readout(setting),
        *_any_classes(setting),
        *_dissociation(setting),
        _relu(setting),
        _relu_statistic(setting.within(4, 16)),
        *_controls(setting),
    ]


def _any_readout(setting: Setting) -> list[Row]:
    """(5.2) for a tanh readout with everything random."""
    rng, dim = setting.rng("C5"), setting.dim
    problem = label_problem(setting, rng, 4)
    parts = {
        "value": problem.value,
        "own": rng.standard_normal((7, dim)) / np.sqrt(dim),
        "mixed": rng.standard_normal((7, dim)),
        "offset": rng.standard_normal(7),
        "weight": rng.standard_normal(7),
    }
    head, inputs = measure.NeuronHead(**parts), measure.tensor(problem.inputs)
    uniform = np.zeros((setting.length, setting.length))
    direction = rng.standard_normal(uniform.shape)
    sensitivity = predictions.neuron_sensitivity(problem.inputs, **parts)
    predicted = predictions.readout_derivative(direction, sensitivity, problem.inputs)
    measured = measure.derivative(lambda scores: head(scores, inputs), uniform, direction)
    scale = EXACT * float(np.linalg.norm(sensitivity) * np.linalg.norm(problem.inputs)) / setting.length**1.5
    return [agree("C5", "derivative of a tanh readout, random direction", predicted, measured, scale, "autograd")]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Labelled sequences (n, L, d) of two classes, class 0 first, and the gain they are reconstructed with."""

    inputs: Array
    labels: Array
    gain: float

    def label(self, head: measure.Head, direction: Array, select: slice = slice(None)) -> float:
        """Expected label gradient along a direction, by autograd, per unit of the readout's scale."""
        losses = measure.label_losses(head, self.inputs[select], self.labels[select])
        return float(measure.derivative(losses, np.zeros_like(direction), direction).mean()) / SMALL

    def reconstruction(self, direction: Array) -> float:
        """Expected reconstruction gradient along a direction, by autograd."""
        losses = measure.reconstruction_losses(self.inputs, self.gain)
        return float(measure.derivative(losses, np.zeros_like(direction), direction).mean())


def _classes(first: Array, second: Array, setting: Setting) -> Classes:
    """Two classes with given second moments, in equal numbers and free of sampling error."""
    points = sigma_points(first, setting.dim), sigma_points(second, setting.dim)
    labels = np.repeat([0.0, 1.0], [len(points[0]), len(points[1])])
    return Classes(inputs=np.concatenate(points), labels=labels, gain=setting.gain)


def _bilinear(setting: Setting, scale: float = SMALL, bias: float = 0.0) -> measure.BilinearHead:
    """A readout whose tr(B W_V^T) is close to d, so that effects are of known size."""
    rng = setting.rng("C5 readout")
    value = rng.standard_normal((setting.dim, setting.dim))
    value *= math.sqrt(setting.dim) / np.linalg.norm(value)
    form = value + 0.1 * rng.standard_normal(value.shape)
    return measure.BilinearHead(value=value, form=form, scale=scale, bias=bias)


def _statistics(head: measure.BilinearHead, *moments: Array) -> list[Array]:
    return [predictions.bilinear_statistic(matrix, head.form, head.value) for matrix in moments]


def _any_classes(setting: Setting) -> list[Row]:
    """(5.4) for two random classes and a random direction, and how its assumption f -> 0 is approached."""
    small = setting.within(3, 16, widest=4)
    rng, length = small.rng("C5 classes"), small.length
    roots = rng.standard_normal((2, length, length)) / math.sqrt(length)
    first, second = (root @ root.T for root in roots)
    classes, direction = _classes(first, second, small), rng.standard_normal((length, length))
    predicted = predictions.class_gradient(direction, *_statistics(_bilinear(small), first, second))
    measured = classes.label(_bilinear(small), direction)
    scales = np.array([1e-2, 1e-3, 1e-4])  # l' is odd around f = 0 up to a constant: the next order is the third
    errors = [abs(classes.label(_bilinear(small, e), direction) * SMALL / e - predicted) for e in scales]
    name = f"random classes and direction, {small.size}"
    return [
        agree(
            "C5",
            f"label gradient, {name}",
            predicted,
            measured,
            1e-4 * small.dim / length,
            f"readout of scale {SMALL:g}",
        ),
        agree(
            "C5",
            f"order of its error in the scale, {small.size}",
            1,
            measure.log_slope(scales, np.array(errors)),
            0.1,
            "log-log slope",
        ),
    ]


def _dissociation(setting: Setting) -> list[Row]:
    """Two by two: what classes share or not, and what each loss sees of it along one proximity direction."""
    small = setting.within(4, 16, widest=4)
    length, head = small.length, _bilinear(small)
    kernel = contrast_kernel(length)
    direction = periodic_direction(kernel)
    found = []
    for name, strengths in [
        ("classes share the correlation", (STRENGTH, STRENGTH)),
        ("classes differ, pooled correlation zero", (STRENGTH, -STRENGTH)),
        ("classes differ, pooled correlation not zero", (STRENGTH, 0.1)),
    ]:
        profiles = [lag_one(length, strength) for strength in strengths]
        moments = [periodic_direction(profile) for profile in profiles]
        classes = _classes(moments[0], moments[1], small)
        predicted = predictions.class_gradient(direction, *_statistics(head, *moments))
        measured = classes.label(head, direction)
        scale = small.dim / length  # of a label gradient along this direction
        found.append(
            agree("C5", f"label gradient: {name}, {small.size}", predicted, measured, 1e-4 * scale, "autograd")
        )
        predicted = predictions.proximity_derivative(kernel, (profiles[0] + profiles[1]) / 2, small.gain)
        measured, scale = classes.reconstruction(direction), EXACT * small.gain * (1 + small.gain)
        found.append(
            agree("C5", f"reconstruction gradient: {name}, {small.size}", predicted, measured, scale, "autograd")
        )
    return found


def _relu_head(setting: Setting) -> measure.NeuronHead:
    """The readout of practice, one hidden layer of rectifiers, with an effect of known size."""
    rng, dim = setting.rng("C5 relu"), setting.dim
    value = np.eye(dim) + 0.2 * rng.standard_normal((dim, dim)) / math.sqrt(dim)
    own = rng.standard_normal((6, dim)) / math.sqrt(dim)
    mixed = own + 0.2 * rng.standard_normal((6, dim)) / math.sqrt(dim)
    weight = rng.uniform(0.5, 1.5, 6)
    return measure.NeuronHead(
        value=value, own=own, mixed=mixed, offset=np.zeros(6), weight=weight, scale=SMALL, activation="relu"
    )


def _relu_profile(head: measure.NeuronHead, profile: Array) -> Array:
    return predictions.relu_statistic(profile, head.own, head.mixed @ head.value.T, head.weight)


def _relu(setting: Setting) -> Row:
    small = setting.within(4, 16, widest=8)
    rng, length, dim, head = small.rng("C5 relu data"), small.length, small.dim, _relu_head(small)
    profiles = lag_one(length, STRENGTH), lag_one(length, -STRENGTH)
    direction, half = periodic_direction(proximity_kernel(length)), small.draws // 2
    statistics = [periodic_direction(_relu_profile(head, profile)) for profile in profiles]
    predicted = predictions.class_gradient(direction, statistics[0], statistics[1])
    derivatives = [
        measure.derivative(losses, np.zeros((length, length)), direction) / SMALL
        for label, profile in enumerate(profiles)
        for losses in _chunked(head, gaussian_sequences(periodic_direction(profile), dim, half, rng), label)
    ]
    sample = np.concatenate(derivatives)
    interval = 5 * float(sample.std()) / math.sqrt(len(sample))
    note = f"{len(sample)} Gaussian sequences; 5 standard errors"
    return agree("C5", f"label gradient, relu readout, {small.size}", predicted, sample.mean(), interval, note)


def _relu_statistic(setting: Setting) -> Row:
    """(5.5) itself, its constant included: gradients on the pattern, unlike those on scores, are not centred.

    One channel, of a constant and one frequency, is Gaussian in three dimensions, so points on a sphere stand for it.
    """
    length, rng, angles = setting.length, setting.rng("C5 relu statistic"), 2 * np.pi * np.arange(setting.length)
    own, mixed = rng.uniform(0.5, 1.5, (2, 6, 1))
    mixed[::2] *= -1
    value, weight = np.array([[1.3]]), rng.uniform(0.5, 1.5, 6)
    head = measure.NeuronHead(value=value, own=own, mixed=mixed, offset=np.zeros(6), weight=weight, activation="relu")
    waves = np.stack([np.ones(length), np.cos(angles / length), np.sin(angles / length)], axis=1) * [1.0, 1.1, 1.1]
    # A Gaussian's radius has the mean 2 sqrt(2/pi) in three dimensions, and slopes are linear in it.
    inputs = 2 * math.sqrt(2 / math.pi) * sphere(4000) @ waves.T
    tokens, uniform = measure.tensor(inputs[:, :, None]), np.full((length, length), 1 / length)
    measured = length * measure.by_offset(measure.gradient(lambda pattern: head.read(pattern, tokens), uniform))
    predicted = _relu_profile(head, 1 + 1.21 * np.cos(angles / length))
    note, name = f"{len(inputs)} points on a sphere", f"lagged statistic of the relu readout, L = {length}, d = 1"
    return agree("C5", name, predicted, measured, 1e-2 * float(np.linalg.norm(predicted)), note)


def _chunked(head: measure.Head, inputs: Array, label: int) -> list[Callable[[Tensor], Tensor]]:
    chunks = measure.in_chunks(inputs, 2500)
    return [measure.label_losses(head, chunk, np.full(len(chunk), float(label))) for chunk in chunks]


def _controls(setting: Setting) -> list[Row]:
    small = setting.within(4, 16, widest=4)
    length, rng = small.length, small.rng("C5 controls")
    direction = periodic_direction(contrast_kernel(length))
    strong, weak = (periodic_direction(lag_one(length, strength)) for strength in (STRENGTH, -STRENGTH))
    head = _bilinear(small)
    effect = predictions.class_gradient(direction, *_statistics(head, strong, weak))
    problem: LabelProblem = label_problem(small, rng)
    linear = measure.LinearHead(value=problem.value, weight=SMALL * problem.weight)
    alone = measure.NeuronHead(
        value=problem.value,
        own=np.zeros((6, small.dim)),
        mixed=rng.standard_normal((6, small.dim)),
        offset=rng.standard_normal(6),
        weight=rng.standard_normal(6),
        scale=SMALL,
    )
    differing, sharing = _classes(strong, weak, small), _classes(strong, strong, small)
    two_to_one = slice(0, 3 * len(sharing.inputs) // 4)  # all of class 0, half of class 1 with the same moments
    seen, blind = "a label gradient is predicted; none may be left", "none is predicted; one must appear"
    margin = 0.1 * abs(effect)
    return [
        differ(
            "C5",
            f"linear readout, classes differ, {small.size}",
            effect,
            differing.label(linear, direction),
            0.9 * abs(effect),
            seen,
        ),
        differ(
            "C5",
            f"tanh readout without residual stream, classes differ, {small.size}",
            effect,
            differing.label(alone, direction),
            0.9 * abs(effect),
            seen,
        ),
        differ(
            "C5",
            f"unbalanced labels, classes share, {small.size}",
            0,
            sharing.label(head, direction, two_to_one),
            margin,
            blind,
        ),
        differ(
            "C5",
            f"output far from 0, classes share, {small.size}",
            0,
            sharing.label(_bilinear(small, bias=1.0), direction),
            margin,
            blind,
        ),
    ]
