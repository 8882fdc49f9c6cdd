"""C7: reconstruction turns absolute position codes into scores that depend on the offset and favour near keys."""

import math

import numpy as np

from theory import measurements as measure
from theory import predictions
from theory.claims import code_factors
from theory.coded_scores import (
    CORRELATION,
    code_gradient,
    data,
    form_gradient,
    label_losses,
    off_circulant,
    step,
)
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    Setting,
    cubature,
    decaying,
    label_problem,
    periodic_direction,
    position_codes,
    sigma_points,
)

EXACT = 1e-13  # relative, for quantities that are equal in exact arithmetic
RATIO = 0.4  # chance of a position to be hidden
MARGIN = 0.02  # a relative effect that rounding cannot bring about


def rows(setting: Setting) -> list[Row]:
    return [
        *first_steps(setting),
        _random_codes(setting.within(5, 6, widest=1)),
        *code_factors.rows(setting.within(5, 9, widest=2)),
        *_controls(setting.within(8, 32, widest=2)),
    ]


def first_steps(setting: Setting) -> list[Row]:
    """The rows about given codes and M = 0."""
    return [
        *_first_step(setting.within(3, 64, widest=2)),
        *_falling(setting.within(9, 63, widest=1)),
        _masks(setting.within(5, 7, widest=2)),
        *_all_frequencies(setting.within(5, 33, widest=2)),
    ]


def pairs_of(length: int) -> int:
    """Number of frequencies: 8, or all that lie below L/2."""
    return min(8, (length - 1) // 2)


def _falls(profile: Array) -> int:
    """How many offsets in a row, from 0 on, a profile falls by more than rounding."""
    return int((np.diff(profile) < -1e-9 * np.abs(profile).max()).cumprod().sum())


def _first_step(setting: Setting) -> list[Row]:
    length, gain, pairs = setting.length, setting.gain, pairs_of(setting.length)
    codes, name = position_codes(length, pairs, centred=True), f"{pairs} frequencies, {setting.size}"
    size, note = EXACT * gain * (1 + gain), "autograd at M = 0 on sigma points"
    found = []
    for kind, ratio in [("correlated data", CORRELATION), ("white data", 0.0)]:
        weights = predictions.code_weights(decaying(length, ratio), pairs, gain)
        measured, predicted = code_gradient(data(setting, ratio), codes, gain), -np.diag(np.tile(weights, 2))
        found.append(agree("C7", f"gradient on M, {kind}, {name}", predicted, measured, size, note))
    inputs = data(setting)
    weights = predictions.code_weights(decaying(length, CORRELATION), pairs, gain)
    predicted, scores = periodic_direction(predictions.code_profile(weights, length)), step(inputs, codes, gain)
    of_labels = np.linalg.norm(form_gradient(label_losses(setting, inputs), codes))
    return [
        *found,
        agree("C7", f"the first step of the scores, {name}", predicted, scores, size * length, note),
        agree("C7", f"what of it is not a function of the offset, {name}", 0, off_circulant(scores), 1e-12, note),
        agree("C7", f"label gradient on M, same codes and data, {name}", 0, of_labels, EXACT, note),
    ]


def _falling(setting: Setting) -> list[Row]:
    """With codes of the frequencies at which the data's spectrum is high, scores fall with distance."""
    length, gain = setting.length, setting.gain
    weights = predictions.code_weights(decaying(length, CORRELATION), pairs_of(length), gain)
    count = max(1, int((weights > 0).cumprod().sum()))
    codes = position_codes(length, count, centred=True)
    last = predictions.falling_range(length, count)
    profile = measure.by_offset(step(data(setting), codes, gain))
    opposite = measure.by_offset(step(data(setting, -CORRELATION), codes, gain))
    name, note = f"{count} frequencies, L = {length}", "first step of the scores, autograd at M = 0"
    missing = last - _falls(profile[: last + 1])
    alone, of_alone = (
        [_falls_of_one(setting, n) for n in (1, 2, 3)],
        [predictions.falling_range(length, n) for n in (1, 2, 3)],
    )
    falling = f"offsets over which scores fall, frequency 1, 2 or 3 alone, L = {length}"
    rising = f"alternating correlation, offset of the highest score, {name}"
    return [
        agree("C7", f"offset of the highest score, {name}", 0, int(profile.argmax()), 0, note),
        agree("C7", f"steps without a fall over offsets 0 .. {last}, {name}", 0, missing, 0, note),
        agree("C7", falling, of_alone, alone, 0, note),
        differ("C7", rising, 0, int(opposite.argmax()), 0.5, note),
    ]


def _falls_of_one(setting: Setting, frequency: int) -> int:
    """Over how many offsets scores fall, with codes and data of one frequency."""
    length = setting.length
    codes = position_codes(length, frequency, centred=True)[:, [frequency - 1, 2 * frequency - 1]]
    autocorrelation = np.eye(length)[0] + np.cos(2 * np.pi * frequency * np.arange(length) / length)
    inputs = sigma_points(periodic_direction(autocorrelation), setting.dim)
    return _falls(measure.by_offset(step(inputs, codes, setting.gain)))


def _masks(setting: Setting) -> Row:
    """(7.1) for masks of several positions: every mask of a short sequence, weighted by its probability."""
    length, gain, pairs = setting.length, setting.gain, pairs_of(setting.length)
    autocorrelation = 1.7 * decaying(length, CORRELATION)
    inputs = sigma_points(periodic_direction(autocorrelation), setting.dim)
    losses = measure.losses_under_all_masks(inputs, RATIO, gain, per_mask=False)
    measured = form_gradient(losses, position_codes(length, pairs, centred=True))
    seen, both = predictions.visibility(length, RATIO, per_mask=False)
    predicted = predictions.code_weights(autocorrelation, pairs, gain, seen, both)
    name = f"gradient on M, Bernoulli({RATIO}) masks, {setting.size}"
    note = f"autograd over all {2**length - 1} masks of sigma points"
    return agree("C7", name, -np.diag(np.tile(predicted, 2)), measured, EXACT * gain * (1 + gain), note)


def _all_frequencies(setting: Setting) -> list[Row]:
    """Codes that can express every circulant step: the data alone decide how scores fall beyond the own slot."""
    odd = setting.within(5, setting.length - 1 + setting.length % 2)
    length, gain = odd.length, odd.gain
    codes = position_codes(length, length // 2, centred=True)
    scores = step(data(odd), codes, gain)
    profile = measure.by_offset(scores)
    free = predictions.reconstruction_gradient(periodic_direction(decaying(length, CORRELATION)), gain)
    drop = predictions.near_drop(decaying(length, CORRELATION), gain)
    size, note = EXACT * length * gain * (1 + gain), "autograd at M = 0 on sigma points"
    white = measure.by_offset(step(data(odd, 0.0), codes, gain))
    name = f"all frequencies, {odd.size}"
    return [
        agree("C7", f"the first step is that of free scores, {name}", -(length**2) / 4 * free, scores, size, note),
        agree("C7", f"drop from offset 1 to 2, {name}", drop, profile[1] - profile[2], size, note),
        differ("C7", f"white data: drop from offset 1 to 2, {name}", drop, white[1] - white[2], 0.9 * drop, note),
    ]


def _random_codes(setting: Setting) -> Row:
    """(7.5): codes drawn at random, as learned position embeddings start; a cubature stands for the draws."""
    length, gain, width = setting.length, setting.gain, 3
    draws, weights = cubature(np.eye(length), width)
    inputs = data(setting)
    steps = [step(inputs, codes / math.sqrt(width), gain) for codes in draws]
    measured = np.tensordot(weights, np.stack(steps), 1)
    moments = periodic_direction(decaying(length, CORRELATION))
    predicted = predictions.random_codes_step(moments, width, gain)
    note = f"autograd at M = 0, {len(draws)} codes with the moments of Gaussian ones"
    tolerance = EXACT * len(draws) * gain * (1 + gain)
    return agree("C7", f"the first step with random codes, mean, {setting.size}", predicted, measured, tolerance, note)


def _controls(setting: Setting) -> list[Row]:
    """Each breaks one assumption: the first step is then no function of the offset.

    Half of the frequencies: all of them span the same space in any order of the positions.
    """
    length, gain, pairs = setting.length, setting.gain, pairs_of(setting.length) // 2
    rng, inputs = setting.rng("C7 controls"), data(setting)
    codes = position_codes(length, pairs, centred=True)
    shares = {
        "uncentred codes": [off_circulant(step(inputs, position_codes(length, pairs, centred=False), gain))],
        "permuted positions": [off_circulant(step(inputs, rng.permutation(codes), gain)) for _ in range(8)],
        "non-stationary data": [
            off_circulant(step(label_problem(setting, rng, 3).inputs, codes, gain)) for _ in range(8)
        ],
    }
    note = "share of the step that is no function of the offset; 0 for full periods on stationary data"
    return [
        differ("C7", f"{name}, {setting.size}", 0, math.sqrt(np.mean(np.square(found))), MARGIN, note)
        for name, found in shares.items()
    ]
