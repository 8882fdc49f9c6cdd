"""C6: how many sequences each loss needs to detect a direction, on Gaussian classes that differ a little."""

import math

import numpy as np

from theory import measurements as measure
from theory import predictions
from theory.claims import detection_moments
from theory.gaussian_classes import GaussianClasses, Sample
from theory.rows import Array, Row, agree, differ
from theory.setting import Setting

EXACT = 1e-12  # relative, for quantities that are equal in exact arithmetic
SIGNIFICANCE = 5.0
SHUFFLES = 400


def statistics(classes: GaussianClasses) -> tuple[Array, Array]:
    """(E T, Var T) of both classes, predicted."""
    first, second = classes.moments()
    dim = classes.setting.dim
    return (
        predictions.statistic_moments(classes.direction, first, dim),
        predictions.statistic_moments(classes.direction, second, dim),
    )


def signals(classes: GaussianClasses) -> dict[str, Array]:
    """(mean, variance) per sequence, predicted, of both losses."""
    first, second = statistics(classes)
    setting = classes.setting
    factor = predictions.reconstruction_factor(setting.length, setting.dim, setting.gain)
    return {
        "label": predictions.label_signal(first, second, setting.length),
        "reconstruction": predictions.reconstruction_signal(first, second, factor),
    }


def rows(setting: Setting) -> list[Row]:
    classes = GaussianClasses(setting=setting.within(8, 12, widest=5))
    inputs, sample = classes.draw("C6")
    return [
        *_identities(classes, inputs[:50], sample),
        *_moments(classes, sample),
        *_sizes(classes, sample),
        *_shuffles(classes, sample),
        *_controls(classes),
        *detection_moments.rows(setting),
    ]


def _identities(classes: GaussianClasses, inputs: Array, sample: Sample) -> list[Row]:
    """Per sequence, both losses read one and the same statistic of the data."""
    setting, count = classes.setting, len(inputs)
    statistic = predictions.shared_statistic(classes.direction, inputs)
    factor = predictions.reconstruction_factor(setting.length, setting.dim, setting.gain)
    output = 2 * sample.as_first[:count]  # l' = 1/2 at label 0
    note = f"autograd, {count} sequences, {setting.size}"
    scale = float(np.linalg.norm(statistic))
    return [
        agree(
            "C6",
            "label output reads the shared statistic",
            statistic / setting.length**2,
            output,
            1e-4 * scale / setting.length**2,
            note,
        ),
        agree(
            "C6",
            "reconstruction loss reads the shared statistic",
            factor * statistic,
            sample.reconstruction[:count],
            EXACT * abs(factor) * scale,
            note,
        ),
    ]


def _relative_errors(sample: Array) -> tuple[float, float]:
    """Standard errors, relative, of a sample's mean and of its standard deviation."""
    deviation = sample - sample.mean()
    kurtosis = float((deviation**4).mean() / (deviation**2).mean() ** 2)
    count = len(sample)
    return float(sample.std() / abs(sample.mean()) / math.sqrt(count)), math.sqrt((kurtosis - 1) / (4 * count))


def _moments(classes: GaussianClasses, sample: Sample) -> list[Row]:
    found = []
    for name, derivatives in {"label": sample.label(), "reconstruction": sample.reconstruction}.items():
        mean, variance = signals(classes)[name]
        of_mean, of_spread = _relative_errors(derivatives)
        note = f"{len(derivatives)} sequences; 5 standard errors"
        measured = float(derivatives.mean())
        found += [
            agree(
                "C6",
                f"mean of the {name} derivative, {classes.setting.size}",
                mean,
                measured,
                5 * of_mean * abs(measured),
                note,
            ),
            agree(
                "C6",
                f"spread of the {name} derivative, {classes.setting.size}",
                math.sqrt(variance),
                derivatives.std(),
                5 * of_spread * float(derivatives.std()),
                note,
            ),
        ]
    return found


def _sizes(classes: GaussianClasses, sample: Sample) -> list[Row]:
    found, measured, errors = [], {}, {}
    for name, derivatives in {"label": sample.label(), "reconstruction": sample.reconstruction}.items():
        predicted = predictions.sample_size(signals(classes)[name], SIGNIFICANCE)
        measured[name] = SIGNIFICANCE**2 * float(derivatives.var() / derivatives.mean() ** 2)
        errors[name] = math.hypot(*_relative_errors(derivatives))
        note = f"{len(derivatives)} sequences; 6 standard errors"
        found.append(
            agree(
                "C6",
                f"sample size of the {name} loss at z = {SIGNIFICANCE:g}, {classes.setting.size}",
                predicted,
                measured[name],
                _width(errors[name]) * measured[name],
                note,
            )
        )
        found.append(_rate(name, derivatives))
    ratio = predictions.price_ratio(*statistics(classes))
    note = "label over reconstruction; 6 standard errors"
    found.append(
        agree(
            "C6",
            f"ratio of sample sizes, {classes.setting.size}",
            ratio,
            measured["label"] / measured["reconstruction"],
            _width(math.hypot(*errors.values())) * measured["label"] / measured["reconstruction"],
            note,
        )
    )
    for share in (0.5, 1.0):
        found.append(_power(classes, sample.reconstruction, share))
    return found


def _width(relative_error: float) -> float:
    """Half-width, relative to the measured (sigma / mu)^2, of an interval of 6 standard errors of mu / sigma."""
    return (1 + 6 * relative_error) ** 2 - 1


def block_means(derivatives: Array, size: int) -> Array:
    blocks = len(derivatives) // size
    return derivatives[: blocks * size].reshape(blocks, size).mean(1)


def _rate(name: str, derivatives: Array) -> Row:
    sizes = np.array([1, 2, 4, 8, 16, 32])
    errors = np.array([block_means(derivatives, size).std() for size in sizes])
    note = "log-log slope of the spread of means of 1 .. 32 sequences"
    slope = measure.log_slope(sizes, errors)
    # The spread over B blocks is known to 1 / sqrt(2B); the largest blocks decide.
    tolerance = 5 / math.sqrt(2 * len(derivatives) / 32) / math.log(32) + 0.02
    return agree("C6", f"exponent of the standard error, {name} loss", -0.5, slope, tolerance, note)


def _power(classes: GaussianClasses, derivatives: Array, share: float) -> Row:
    """How often blocks of a share of the predicted size detect the direction."""
    signal = signals(classes)["reconstruction"]
    count = max(2, round(share * predictions.sample_size(signal, SIGNIFICANCE)))
    means = np.abs(block_means(derivatives, count))
    detected = float((means > SIGNIFICANCE * derivatives.std() / math.sqrt(count)).mean())
    predicted = predictions.detection_power(count, signal, SIGNIFICANCE)
    tolerance = 5 * 0.5 / math.sqrt(len(means)) + 0.05
    note = f"{len(means)} experiments; 5 standard errors, and 0.05 for the central limit"
    return agree(
        "C6",
        f"detection rate at {share:g} x the predicted size, reconstruction loss",
        predicted,
        detected,
        tolerance,
        note,
    )


def _score(sample: Sample, rng: np.random.Generator) -> float:
    """Standard score of the mean label gradient among shuffled labels."""
    null = np.array([sample.label(rng.permutation(sample.labels)).mean() for _ in range(SHUFFLES)])
    return float((sample.label().mean() - null.mean()) / null.std())


def _tolerance(score: float) -> float:
    """Five standard errors of a score: 1 from the sample, and the null's spread known to 1 / sqrt(2 shuffles)."""
    return 5 * math.sqrt(1 + score**2 / (2 * SHUFFLES))


def _shuffles(classes: GaussianClasses, sample: Sample) -> list[Row]:
    rng, count = classes.setting.rng("C6 shuffles"), len(sample.labels)
    predicted = predictions.shuffled_score(*statistics(classes), count)
    note = f"{SHUFFLES} shuffles of {count} labels; 5 standard errors"
    found = [
        agree(
            "C6",
            f"label gradient among shuffled labels, {classes.setting.size}",
            predicted,
            _score(sample, rng),
            _tolerance(predicted),
            note,
        )
    ]
    # A biased readout and classes that do not differ: a large label gradient that the labels have no part in.
    biased = GaussianClasses(setting=classes.setting, contrast=0.0, bias=1.0)
    _, sample = biased.draw("C6 biased")
    found.append(
        agree(
            "C6",
            f"the same, classes share, output far from 0, {classes.setting.size}",
            0,
            _score(sample, rng),
            _tolerance(0),
            note,
        )
    )
    derivatives = sample.label()
    score = float(derivatives.mean() / derivatives.std() * math.sqrt(count))
    note = "its score against zero, which is no null; must exceed the margin"
    found.append(
        differ("C6", f"no shuffled labels, classes share, output far from 0, {classes.setting.size}", 0, score, 8, note)
    )
    return found


def _controls(classes: GaussianClasses) -> list[Row]:
    count = classes.setting.draws
    found = []
    for name, loss, broken in [
        ("classes share the correlation", "label", GaussianClasses(setting=classes.setting, contrast=0.0)),
        ("white data", "reconstruction", GaussianClasses(setting=classes.setting, strength=0.0)),
    ]:
        mean, variance = signals(classes)[loss]
        predicted = mean / math.sqrt(variance) * math.sqrt(count)
        _, sample = broken.draw(f"C6 {name}")
        derivatives = sample.label() if loss == "label" else sample.reconstruction
        measured = float(derivatives.mean() / derivatives.std() * math.sqrt(count))
        note = "standard score predicted with the correlation; must be missed by half"
        found.append(
            differ("C6", f"{name}, {loss} loss, {classes.setting.size}", predicted, measured, abs(predicted) / 2, note)
        )
    return found
