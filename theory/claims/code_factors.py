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
from theory.setting import Setting, decaying, label_problem, position_codes

DRAWS = 400
STEPS = 20


def rows(setting: Setting) -> list[Row]:
    return [*_growth(setting), *_translation(setting), *_labels(setting)]


def codes_of(setting: Setting, *, centred: bool = True) -> Array:
    """Codes of all frequencies below L/2 (at most 4)."""
    return position_codes(setting.length, min(4, (setting.length - 1) // 2), centred=centred)


def _growth(setting: Setting) -> list[Row]:
    """(7.6), from a start that has the moments of Gaussian draws exactly, and over Gaussian draws."""
    length, gain, codes = setting.length, setting.gain, codes_of(setting)
    losses, width = measure.reconstruction_losses(data(setting), gain), codes.shape[1]
    weights = predictions.code_weights(decaying(length, CORRELATION), width // 2, gain)
    time, scale, heads = 1 / float(np.abs(weights).max()), 1e-4, 2 * width

    def velocity(factors: Array) -> Array:
        """Of W / sigma, so that the integrator's tolerances fit."""
        return -factor_gradient(losses, codes, scale * factors) / scale

    # W_Q W_Q^T = W_K W_K^T = h I and W_Q W_K^T = 0.
    start = math.sqrt(heads) * np.eye(heads).reshape(2, width, heads)
    end = flows.integrate(velocity, start, np.array([time]))[-1]
    predicted = predictions.code_profile(predictions.factor_growth(weights, heads, 1.0, time), length)
    measured = measure.by_offset(factor_scores(codes, end))
    note = f"gradient flow of both factors, of size {scale:g}"
    tolerance = 1e-5 * float(np.linalg.norm(predicted))
    found = [agree("C7", f"scores after a time of 1 / max |w|, {setting.size}", predicted, measured, tolerance, note)]

    rng, instant, heads, profiles = setting.rng("C7 factors"), 1e-6, 3, []
    for _ in range(DRAWS):
        query, key = rng.standard_normal((2, width, heads))
        of_query, of_key = velocity(np.stack([query, key]))
        profiles.append(measure.by_offset(codes @ (of_query @ key.T + query @ of_key.T) @ codes.T))
    predicted = predictions.code_profile(predictions.factor_growth(weights, heads, 1.0, instant) / instant, length)
    interval = 5 * math.sqrt(float(np.var(profiles, axis=0).sum()) / DRAWS)
    note = f"mean over {DRAWS} draws of W_Q and W_K, by offset; 5 standard errors"
    name = f"first movement of the scores, random W_Q and W_K, {setting.size}"
    return [*found, agree("C7", name, predicted, np.mean(profiles, axis=0), interval, note)]


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
