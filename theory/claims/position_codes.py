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
    decaying,
    label_problem,
    periodic_direction,
    position_codes,
)

EXACT = 1e-13  # relative, for quantities that are equal in exact arithmetic
RATIO = 0.4  # chance of a position to be hidden
MARGIN = 0.02  # a relative effect that rounding cannot bring about


def rows(setting: Setting) -> list[Row]:
    return [
        *_first_step(setting.within(3, 64, widest=2)),
        *_falling(setting.within(8, 64, widest=1)),
        _masks(setting.within(5, 7, widest=2)),
        *_all_frequencies(setting.within(5, 33, widest=2)),
        _random_codes(setting.within(5, 8, widest=1)),
        *code_factors.rows(setting.within(5, 9, widest=2)),
        *_controls(setting.within(8, 32, widest=2)),
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
    alone = measure.by_offset(step(data(setting), codes[:, [count - 1, 2 * count - 1]], gain))
    opposite = measure.by_offset(step(data(setting, -CORRELATION), codes, gain))
    name, note = f"{count} frequencies, L = {length}", "first step of the scores, autograd at M = 0"
    return [
        agree("C7", f"offset of the highest score, {name}", 0, int(profile.argmax()), 0, note),
        agree(
            "C7",
            f"steps without a fall over offsets 0 .. {last}, {name}",
            0,
            last - _falls(profile[: last + 1]),
            0,
            note,
        ),
        agree(
            "C7", f"offsets over which scores fall, frequency {count} alone, L = {length}", last, _falls(alone), 0, note
        ),
        differ(
            "C7", f"alternating correlation, offset of the highest score, {name}", 0, int(opposite.argmax()), 0.5, note
        ),
    ]


def _masks(setting: Setting) -> Row:
    """(7.1) for masks of several positions: every mask of a short sequence, weighted by its probability."""
    length, gain, pairs = setting.length, setting.gain, pairs_of(setting.length)
    inputs, hidden = data(setting), measure.all_masks(setting.length)
    counts = hidden.sum(1)
    chances = RATIO**counts * (1 - RATIO) ** (length - counts) / (RATIO * length)
    losses = measure.masked_losses(np.repeat(inputs, len(hidden), axis=0), np.tile(hidden, (len(inputs), 1)), gain)
    chances = measure.tensor(np.tile(chances * len(hidden), len(inputs)))
    measured = form_gradient(lambda scores: chances * losses(scores), position_codes(length, pairs, centred=True))
    seen, both = predictions.visibility(length, RATIO, per_mask=False)
    predicted = predictions.code_weights(decaying(length, CORRELATION), pairs, gain, seen, both)
    name = f"gradient on M, Bernoulli({RATIO}) masks, {setting.size}"
    note = f"autograd over all {len(hidden)} masks of sigma points"
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
    """(7.5): codes drawn at random, as learned position embeddings start."""
    length, gain, width, draws = setting.length, setting.gain, 2 * setting.length, 400
    rng, moments = setting.rng("C7 codes"), periodic_direction(decaying(setting.length, CORRELATION))
    inputs = data(setting)
    steps = [
        measure.by_offset(step(inputs, rng.standard_normal((length, width)) / math.sqrt(width), gain))
        for _ in range(draws)
    ]
    predicted = measure.by_offset(predictions.random_codes_step(moments, width, gain))
    interval = 5 * math.sqrt(float(np.var(steps, axis=0).sum()) / draws)
    note = f"mean over {draws} draws of codes, by offset; 5 standard errors"
    return agree(
        "C7", f"the first step with random codes, {setting.size}", predicted, np.mean(steps, 0), interval, note
    )


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
