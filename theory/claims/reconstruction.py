"""C4: masked reconstruction sees the data's autocorrelation, along directions that labels cannot see."""

import math

import numpy as np

from theory import measurements as measure
from theory import predictions
from theory.rows import Array, Row, agree, differ
from theory.setting import (
    Setting,
    contrast_kernel,
    decaying,
    gaussian_sequences,
    label_problem,
    periodic_direction,
    proximity_kernel,
    second_moments,
    sigma_points,
)

EXACT = 1e-13  # relative, for quantities that are equal in exact arithmetic
RATIO = 0.4  # chance of a position to be hidden
AVERAGES = {"summed loss": False, "mean per mask": True}  # name -> whether every mask has its own divisor


def rows(setting: Setting) -> list[Row]:
    return [
        *_one_hidden(setting),
        *_small_gain(setting),
        *_proximity(setting),
        *_enumerated(setting),
        _sampled(setting),
        *_controls(setting),
    ]


def _any_data(setting: Setting, stream: str) -> Array:
    """Three sequences of a data set without any symmetry."""
    return label_problem(setting, setting.rng(stream), 3).inputs


def _affordable(setting: Setting) -> Setting:
    """Hiding every position of three sequences in turn needs 3 L^2 d numbers."""
    return setting.within(3, math.isqrt(2_700_000 // setting.dim))


def _one_hidden(setting: Setting) -> list[Row]:
    large = _affordable(setting)
    inputs, uniform = _any_data(large, "C4"), np.zeros((large.length, large.length))
    predicted = predictions.reconstruction_gradient(second_moments(inputs), large.gain)
    measured = measure.gradient(measure.reconstruction_losses(inputs, large.gain), uniform)
    scale = EXACT * float(np.linalg.norm(predicted))
    found = [agree("C4", f"gradient, one position hidden, L = {large.length}", predicted, measured, scale, "autograd")]

    small = setting.within(3, 7)
    length, rng = small.length, small.rng("C4 span")
    gradients = []
    for _ in range(length * (length + 1) // 2 + 4):
        data = label_problem(small, rng, 3).inputs
        flat = measure.gradient(measure.reconstruction_losses(data, small.gain), np.zeros((length, length))).ravel()
        gradients.append(flat / np.linalg.norm(flat))
    rank = np.linalg.matrix_rank(np.stack(gradients), tol=1e-10)
    note = "random data sets, singular values"
    return [
        *found,
        agree("C4", f"rank of gradients, L = {length}", predictions.reconstruction_dimension(length), rank, 0, note),
    ]


def _small_gain(setting: Setting) -> list[Row]:
    small = _affordable(setting).within(3, 64)
    inputs, uniform = _any_data(small, "C4 gain"), np.zeros((small.length, small.length))
    limit = predictions.first_step(second_moments(inputs))
    gains = np.array([1e-2, 1e-3, 1e-4])
    steps = [
        -(small.length**2) / (2 * gain) * measure.gradient(measure.reconstruction_losses(inputs, gain), uniform)
        for gain in gains
    ]
    errors = np.array([float(np.linalg.norm(step - limit)) for step in steps])
    name = f"the first step, L = {small.length}"
    return [
        agree(
            "C4", f"{name}: the centred covariance", limit, steps[-1], 1e-2 * float(np.linalg.norm(limit)), "gain 1e-4"
        ),
        agree(
            "C4", f"{name}: order of its error in the gain", 1, measure.log_slope(gains, errors), 1e-6, "log-log slope"
        ),
    ]


def _proximity(setting: Setting) -> list[Row]:
    """Periodic directions on stationary data, which a finite set of sigma points stands for exactly."""
    small = setting.within(4, 24, widest=4)
    length, gain = small.length, small.gain
    found = []
    for name, kernel, autocorrelation in [
        ("proximity kernel, decaying correlation", proximity_kernel(length), decaying(length, 0.6)),
        ("proximity kernel, alternating correlation", proximity_kernel(length), decaying(length, -0.5)),
        ("contrast kernel, decaying correlation", contrast_kernel(length), decaying(length, 0.6)),
        ("random kernel, decaying correlation", small.rng("C4 kernel").standard_normal(length), decaying(length, 0.3)),
    ]:
        autocorrelation = 1.7 * autocorrelation
        predicted = predictions.proximity_derivative(kernel, autocorrelation, gain)
        measured = _derivative(kernel, autocorrelation, small)
        note = "autograd on sigma points"
        found.append(agree("C4", f"{name}, {small.size}", predicted, measured, EXACT * gain * (1 + gain), note))
    kernel, white = proximity_kernel(length), 1.7 * np.eye(length)[0]
    predicted = predictions.white_derivative(kernel, 1.7, gain)
    measured = _derivative(kernel, white, small)
    note = "only the hidden slot attracts"
    return [
        *found,
        agree(
            "C4", f"proximity kernel, white data, {small.size}", predicted, measured, EXACT * gain * (1 + gain), note
        ),
    ]


def _derivative(kernel: Array, autocorrelation: Array, setting: Setting) -> float:
    inputs = sigma_points(periodic_direction(autocorrelation), setting.dim)
    uniform = np.zeros((setting.length, setting.length))
    function = measure.reconstruction_losses(inputs, setting.gain)
    return float(measure.derivative(function, uniform, periodic_direction(kernel)).mean())


def _enumerated(setting: Setting) -> list[Row]:
    """Masks of several positions, without sampling: any data, and stationary data along a kernel without symmetry."""
    small = setting.within(3, 8)
    length, inputs, found = small.length, _any_data(small, "C4 masks"), []
    for name, per_mask in AVERAGES.items():
        losses = measure.losses_under_all_masks(inputs, RATIO, small.gain, per_mask=per_mask)
        measured = measure.gradient(losses, np.zeros((length, length)))
        seen, both = predictions.visibility(length, RATIO, per_mask=per_mask)
        predicted = predictions.reconstruction_gradient(second_moments(inputs), small.gain, seen, both)
        quantity, note = (
            f"gradient, Bernoulli({RATIO}) masks, {name}, L = {length}",
            f"autograd, all {2**length - 1} masks",
        )
        found.append(agree("C4", quantity, predicted, measured, EXACT * float(np.linalg.norm(predicted)), note))
    small = setting.within(4, 7, widest=1)
    length, gain, autocorrelation = small.length, small.gain, 1.7 * decaying(small.length, 0.6)
    kernel = small.rng("C4 masked kernel").standard_normal(length)
    inputs, direction = sigma_points(periodic_direction(autocorrelation), small.dim), periodic_direction(kernel)
    for name, per_mask in AVERAGES.items():
        losses = measure.losses_under_all_masks(inputs, RATIO, gain, per_mask=per_mask)
        measured = measure.derivative(losses, np.zeros((length, length)), direction).mean()
        seen, both = predictions.visibility(length, RATIO, per_mask=per_mask)
        predicted = predictions.proximity_derivative(kernel, autocorrelation, gain, seen, both)
        quantity, note = (
            f"random kernel, all Bernoulli({RATIO}) masks, {name}, L = {length}",
            "autograd on sigma points",
        )
        found.append(agree("C4", quantity, predicted, measured, EXACT * gain * (1 + gain), note))
    return found


def _sampled(setting: Setting) -> Row:
    """Beyond enumeration: random Gaussian sequences under random masks."""
    large = setting.within(9, 32, widest=8)
    length, rng = large.length, large.rng("C4 sampled")
    kernel, autocorrelation = proximity_kernel(length), decaying(length, 0.6)
    inputs = gaussian_sequences(periodic_direction(autocorrelation), large.dim, large.draws, rng)
    hidden = (rng.random(inputs.shape[:2]) < RATIO).astype(float)
    direction, uniform, chunk = periodic_direction(kernel), np.zeros((length, length)), 2500
    derivatives = np.concatenate(
        [
            measure.derivative(measure.masked_losses(x, mask > 0, large.gain), uniform, direction)
            for x, mask in zip(measure.in_chunks(inputs, chunk), measure.in_chunks(hidden, chunk), strict=True)
        ]
    ) / (RATIO * length)
    seen, both = predictions.visibility(length, RATIO, per_mask=False)
    predicted = predictions.proximity_derivative(kernel, autocorrelation, large.gain, seen, both)
    interval = 5 * derivatives.std() / math.sqrt(large.draws)
    note = f"{large.draws} random sequences and masks; 5 standard errors"
    return agree(
        "C4", f"proximity kernel, Bernoulli({RATIO}) masks, {large.size}", predicted, derivatives.mean(), interval, note
    )


def _controls(setting: Setting) -> list[Row]:
    small = setting.within(4, 24, widest=4)
    length, gain, rng = small.length, small.gain, small.rng("C4 controls")
    kernel, correlated, white = contrast_kernel(length), decaying(length, 0.6), np.eye(length)[0]
    effect = predictions.proximity_derivative(kernel, correlated, gain)
    inputs, uniform = _any_data(small, "C4 controls"), np.zeros((length, length))
    predicted = predictions.reconstruction_gradient(second_moments(inputs), gain)
    losses = measure.reconstruction_losses(inputs, gain)
    rough = measure.gradient(losses, 2 * rng.standard_normal((length, length)))
    x = measure.tensor(inputs)
    # Nothing is hidden: a position may attend to its own answer.
    open_losses = measure.gradient(
        lambda s: ((gain * measure.torch.softmax(s, -1) @ x - x) ** 2).sum((1, 2)) / (length * small.dim), uniform
    )
    margin = 0.1 * float(np.linalg.norm(predicted))
    note = "predicted with the assumption; must be missed by the margin"
    return [
        differ(
            "C4",
            f"white data, contrast kernel, {small.size}",
            effect,
            _derivative(kernel, white, small),
            0.5 * abs(effect),
            note,
        ),
        differ("C4", f"non-uniform attention, {small.size}", predicted, rough, margin, note),
        differ("C4", f"no position hidden, {small.size}", predicted, open_losses, margin, note),
    ]
