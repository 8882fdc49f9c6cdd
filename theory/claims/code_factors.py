"""C7, off the bilinear form: scores P W_Q W_K^T P^T from random W_Q and W_K."""

import math

import numpy as np

from theory import flows, predictions
from theory import measurements as measure
from theory.coded_scores import (
    CORRELATION,
    data,
    factor_gradient,
    factor_scores,
    label_losses,
)
from theory.rows import Array, Row, agree, differ
from theory.setting import Setting, cubature, decaying, label_problem, periodic_direction, position_codes

SCALE = 1e-4  # sigma, which stands for sigma -> 0
STEPS = 20


def rows(setting: Setting) -> list[Row]:
    return [*_growth(setting), *_translation(setting), *_labels(setting)]


def codes_of(setting: Setting, *, centred: bool = True) -> Array:
    """Codes of all frequencies below L/2 (at most 3)."""
    return position_codes(setting.length, min(3, (setting.length - 1) // 2), centred=centred)


def _growth(setting: Setting) -> list[Row]:
    """(7.6): the mean over Gaussian draws, for which finite sets of the same moments stand."""
    length, gain, codes = setting.length, setting.gain, codes_of(setting)
    losses, width = measure.reconstruction_losses(data(setting), gain), codes.shape[1]
    weights = predictions.code_weights(decaying(length, CORRELATION), width // 2, gain)
    time, heads = 1 / float(np.abs(weights).max()), 2 * width

    def velocity(factors: Array) -> Array:
        """Of W / sigma, so that the integrator's tolerances fit."""
        return -factor_gradient(losses, codes, SCALE * factors) / SCALE

    # W_Q W_Q^T = W_K W_K^T = h sigma^2 I and W_Q W_K^T = 0.
    start = math.sqrt(heads) * np.eye(heads).reshape(2, width, heads)
    end = SCALE * flows.integrate(velocity, start, np.array([time]))[-1]
    predicted = predictions.code_profile(predictions.factor_growth(weights, heads, SCALE, time), length)
    measured = measure.by_offset(factor_scores(codes, end))
    note = f"gradient flow of both factors, of size {SCALE:g}"
    tolerance = 1e-5 * float(np.linalg.norm(predicted))
    found = [agree("C7", f"scores after a time of 1 / max |w|, {setting.size}", predicted, measured, tolerance, note)]

    instant, heads, measured = 1e-6, 2, np.zeros((length, length))
    draws, chances = cubature(np.eye(2 * width), heads)
    for factors, chance in zip(draws.reshape(-1, 2, width, heads), chances, strict=True):
        of_query, of_key = velocity(factors)
        measured += chance * (codes @ (of_query @ factors[1].T + factors[0] @ of_key.T) @ codes.T)
    grown = predictions.factor_growth(weights, heads, SCALE, instant) / instant / SCALE**2
    predicted = periodic_direction(predictions.code_profile(grown, length))
    note = f"{len(draws)} pairs W_Q, W_K with the moments of Gaussian ones"
    name = f"first movement of the scores, random W_Q and W_K, mean, {setting.size}"
    return [*found, agree("C7", name, predicted, measured, 1e-5 * float(np.linalg.norm(predicted)), note)]


def _translation(setting: Setting) -> list[Row]:
    """Descent commutes with a translation of the ring, from scores of any size: hence the mean is circulant."""
    rng, length, gain, codes = setting.rng("C7 translation"), setting.length, setting.gain, codes_of(setting)
    width = codes.shape[1]
    start = rng.standard_normal((2, width, 3)) / math.sqrt(width)
    rotation = np.linalg.lstsq(codes, np.roll(codes, -1, axis=0), rcond=None)[0]

    def both(inputs: Array) -> tuple[Array, Array, float]:
        """Where descent from the start goes, translated; where it goes from the translated start; how far that is."""
        losses, ends = measure.reconstruction_losses(inputs, gain), []
        for factors in (start, rotation @ start):
            for _ in range(STEPS):
                factors = factors - length / gain / (1 + gain) * factor_gradient(losses, codes, factors)
            ends.append(factor_scores(codes, factors))
        moved = float(np.linalg.norm(ends[1] - factor_scores(codes, rotation @ start)))
        return np.roll(ends[0], (-1, -1), axis=(0, 1)), ends[1], moved

    translated, reached, moved = both(data(setting))
    name = f"{STEPS} steps of descent from a translated start, {setting.size}"
    found = [agree("C7", name, translated, reached, 1e-9 * moved, "the translated scores; both by autograd")]
    translated, reached, moved = both(label_problem(setting, rng, 3).inputs)
    return [
        *found,
        differ(
            "C7", f"the same, non-stationary data, {setting.size}", translated, reached, 1e-2 * moved, "must differ"
        ),
    ]


def _labels(setting: Setting) -> list[Row]:
    """How the label gradient on W_Q, W_K falls behind that of reconstruction as their size goes to zero."""
    rng, inputs, found = setting.rng("C7 labels and factors"), data(setting), []
    of_labels = label_losses(setting, inputs)
    of_reconstruction = measure.reconstruction_losses(inputs, setting.gain)
    scales, slopes = np.array([1e-1, 1e-2, 1e-3]), {}
    for centred in (True, False):
        codes = codes_of(setting, centred=centred)
        start = rng.standard_normal((2, codes.shape[1], 3)) / codes.shape[1]
        norms = [
            float(np.linalg.norm(factor_gradient(of_labels, codes, scale * start)))
            / float(np.linalg.norm(factor_gradient(of_reconstruction, codes, scale * start)))
            for scale in scales
        ]
        slopes[centred] = measure.log_slope(scales, np.array(norms))
    name, note = f"order in sigma of label over reconstruction gradient, {setting.size}", "log-log slope, 1e-3 .. 1e-1"
    found.append(agree("C7", name, 2, slopes[True], 0.1, note))
    return [*found, differ("C7", f"the same, uncentred codes, {setting.size}", 2, slopes[False], 1, note)]
