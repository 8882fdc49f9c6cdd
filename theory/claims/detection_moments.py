"""C6 without sampling: two classes that differ a lot, by a cubature that is exact for what both losses read."""

import itertools
import math

import numpy as np

from theory import measurements as measure
from theory import predictions
from theory.gaussian_classes import SMALL
from theory.rows import Array, Row, agree
from theory.setting import Setting, cubature, decaying, gaussian_sequences, periodic_direction

EXACT = 1e-11  # relative, for quantities that are equal in exact arithmetic
OF_SCALE = 1e-4  # relative, of the readout's scale that stands for f -> 0
SIGNIFICANCE = 5.0


def rows(setting: Setting) -> list[Row]:
    small = setting.within(4, 8, widest=2)
    return [*_moments(small), _shuffles(small)]


def _direction(setting: Setting) -> Array:
    """Periodic, empty at offset 0 after centring, and one-sided: near keys to the right."""
    kernel = np.exp(-np.arange(setting.length) / 1.5)
    kernel[0] = kernel[1:].mean()
    return periodic_direction(kernel)


def _class_moments(setting: Setting) -> list[Array]:
    """Second moments of two classes: opposite correlations, and powers that differ by position (not stationary)."""
    rng, found = setting.rng("C6 powers"), []
    for ratio in (0.7, -0.3):
        powers = rng.uniform(0.6, 1.4, setting.length)
        found.append(powers[:, None] * periodic_direction(decaying(setting.length, ratio)) * powers)
    return found


def _losses(inputs: Array, label: float, gain: float) -> dict[str, measure.Losses]:
    """Losses per sequence: of the label, for the readout sum_i <x_i, z_i> / L, and of reconstruction."""
    identity = np.eye(inputs.shape[2])
    head = measure.BilinearHead(value=identity, form=identity, scale=SMALL)
    of_label = measure.label_losses(head, inputs, np.full(len(inputs), label))
    return {
        "label": lambda scores: of_label(scores) / SMALL,
        "reconstruction": measure.reconstruction_losses(inputs, gain),
    }


def _moments(setting: Setting) -> list[Row]:
    length, dim, gain, direction = setting.length, setting.dim, setting.gain, _direction(setting)
    classes = _class_moments(setting)
    statistics = [predictions.statistic_moments(direction, moments, dim) for moments in classes]
    factor = predictions.reconstruction_factor(length, dim, gain)
    predicted = {
        "label": predictions.label_signal(statistics[0], statistics[1], length),
        "reconstruction": predictions.reconstruction_signal(statistics[0], statistics[1], factor),
    }
    powers: dict[str, list[Array]] = {"label": [], "reconstruction": []}  # per class: first and second moment
    for label, moments in enumerate(classes):
        inputs, weights = cubature(moments, dim)
        for name, losses in _losses(inputs, float(label), gain).items():
            derivatives = measure.derivative(losses, np.zeros((length, length)), direction)
            powers[name].append(np.array([weights @ derivatives, weights @ derivatives**2]))
    found, sizes, note = [], {}, "autograd on a cubature of degree 5"
    for name, (of_first, of_second) in powers.items():
        tolerance = OF_SCALE if name == "label" else EXACT
        mean, square = (of_first + of_second) / 2
        variance = square - mean**2
        units = np.array([math.sqrt(variance), variance])
        mine, theirs = np.array([mean, variance]) / units, predicted[name] / units
        quantity, own_note = f"mean and variance of the {name} derivative, exact, {setting.size}", note + "; in spreads"
        found.append(agree("C6", quantity, theirs, mine, tolerance, own_note))
        sizes[name] = float(SIGNIFICANCE**2 * variance / mean**2)
        size = predictions.sample_size(predicted[name], SIGNIFICANCE)
        quantity, tolerance = f"sample size of the {name} loss, exact, {setting.size}", 10 * tolerance * size
        found.append(agree("C6", quantity, size, sizes[name], tolerance, note))
    ratio = predictions.price_ratio(statistics[0], statistics[1])
    name = f"ratio of sample sizes, exact, {setting.size}"
    return [*found, agree("C6", name, ratio, sizes["label"] / sizes["reconstruction"], 10 * OF_SCALE * ratio, note)]


def _shuffles(setting: Setting) -> Row:
    """(6.9) on eight sequences, against every balanced labelling of them."""
    direction, rng, half = _direction(setting), setting.rng("C6 labellings"), 4
    inputs = np.concatenate([gaussian_sequences(m, setting.dim, half, rng) for m in _class_moments(setting)])
    statistic = predictions.shared_statistic(direction, inputs).reshape(2, half)
    first, second = np.stack([statistic.mean(1), statistic.var(1)], axis=1)
    uniform = np.zeros((setting.length, setting.length))
    slopes = [
        measure.derivative(_losses(inputs, label, setting.gain)["label"], uniform, direction) for label in (0.0, 1.0)
    ]
    labellings = np.ones((math.comb(2 * half, half), 2 * half))
    for labels, zeros in zip(labellings, itertools.combinations(range(2 * half), half), strict=True):
        labels[list(zeros)] = 0.0
    means = np.where(labellings > 0, slopes[1], slopes[0]).mean(1)
    own = means[0]  # the first labelling has the first half as class 0
    score = float((own - means.mean()) / means.std())
    predicted = predictions.shuffled_score(first, second, 2 * half - 1)
    note = f"all {len(labellings)} labellings of {2 * half} sequences, for which n becomes n - 1"
    name = f"label gradient among all labellings, {setting.size}"
    return agree("C6", name, predicted, score, 10 * OF_SCALE * max(1, abs(predicted)), note)
