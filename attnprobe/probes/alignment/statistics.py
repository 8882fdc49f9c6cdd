"""From per-sequence projections to rows with intervals, nulls and prices of detection."""

import dataclasses
import math

import numpy as np
from scipy.special import softmax

from attnprobe.probes.alignment.arrangement import NullProjections, null_rows
from attnprobe.probes.alignment.gather import Gathered
from attnprobe.probes.alignment.rows import AlignmentRow, Settings, ratio, scaled
from attnprobe.scores.directions import BLOCK, ScoreSpace
from attnprobe.scores.offset_sums import pair_counts
from attnprobe.statistics.cosines import noise_corrected_cosine_from_products
from attnprobe.statistics.intervals import RESAMPLES, Interval, band_from_replicates, bootstrap, drawn_counts
from attnprobe.statistics.permutations import permutation_p_value, sign_flip_p_value

SHUFFLES_AT_ONCE = 64
COLUMNS = 2**16


def all_rows(
    gathered: dict[str, Gathered],
    labels: np.ndarray,
    names: list[str],
    null: NullProjections | None,
    space: ScoreSpace,
    settings: Settings,
) -> list[AlignmentRow]:
    """Every quantity of ``Alignment``; ``names`` are those of the directions in the order of the projections."""
    pulled = gathered["reconstruction"]
    return [
        *label_rows(gathered["label"], labels, names, settings),
        *reconstruction_rows(pulled, names, settings),
        *(null_rows(pulled.projection, names, null, settings) if null is not None else []),
        *share_rows(gathered, space, settings),
        *(cosine_rows(gathered, settings) if len(gathered["label"].group_means["offsets"]) > 1 else []),
    ]


def direction_rows(
    samples: np.ndarray, quantity: str, names: list[str], settings: Settings, *, p_values: np.ndarray | None = None
) -> list[AlignmentRow]:
    """Mean, t and price of detection of per-sequence projections (n, layer, head, direction).

    The interval of t is that of the mean in standard errors.
    """
    band = bootstrap(samples, level=settings.level, generator=settings.draws(quantity, "bootstrap"))
    deviation = samples.std(0, ddof=1)
    error = deviation / math.sqrt(len(samples))
    rows = []
    for layer, head, d in np.ndindex(band.estimate.shape):
        mean = band.interval(layer, head, d, unit="loss per unit score")
        in_errors = scaled(mean, float(error[layer, head, d]), "standard errors")
        price = detection_price(mean, float(deviation[layer, head, d]), settings.z)
        p = None if p_values is None else float(p_values[layer, head, d])
        row = AlignmentRow(
            layer=layer, head=head, direction=names[d], quantity=f"{quantity}.mean", interval=mean, p_value=p
        )
        rows.append(row)
        for what, interval in (("t", in_errors), ("sequences", price)):
            rows.append(dataclasses.replace(row, quantity=f"{quantity}.{what}", interval=interval, p_value=None))
    return rows


def detection_price(mean: Interval, deviation: float, z: float) -> Interval:
    """Sequences needed to see a mean at z standard errors, n = (z sigma / mu)^2; infinite where mu may be zero."""

    def price(size: float) -> float:
        return math.inf if size == 0 else (z * deviation / size) ** 2

    crosses_zero = not mean.low * mean.high > 0
    return dataclasses.replace(
        mean,
        estimate=price(abs(mean.estimate)),
        low=price(max(abs(mean.low), abs(mean.high))),
        high=math.inf if crosses_zero else price(min(abs(mean.low), abs(mean.high))),
        unit="sequences",
    )


def reconstruction_rows(gathered: Gathered, names: list[str], settings: Settings) -> list[AlignmentRow]:
    """p_value: sign flips, that is against a mean of zero."""
    samples = gathered.projection
    p_values = sign_flip_p_value(samples, permutations=settings.shuffles, generator=settings.draws("sign flips"))
    return direction_rows(samples, "reconstruction", names, settings, p_values=p_values)


def label_rows(gathered: Gathered, labels: np.ndarray, names: list[str], settings: Settings) -> list[AlignmentRow]:
    """The label gradient, its shuffled-label null, and the part of it that depends on the labels."""
    logits, g = gathered.targets, gathered.projections
    dependent = label_dependence(g, labels)
    null_mean, null_t = shuffled_labels(logits, g, labels, settings)
    p_values = permutation_p_value(dependent.mean(0), null_mean)
    null = band_from_replicates(null_t.mean(0), null_t, level=settings.level, n=len(labels))
    rows = direction_rows(gathered.projection, "label", names, settings)
    rows = [row for row in rows if row.quantity != "label.sequences"]  # more data only resolves the untrained readout
    rows += direction_rows(dependent, "label.dependent", names, settings, p_values=p_values)
    for layer, head, d in np.ndindex(null.estimate.shape):
        interval = null.interval(layer, head, d, unit="standard errors")
        rows.append(
            AlignmentRow(layer=layer, head=head, direction=names[d], quantity="label.t.null", interval=interval)
        )
    return rows


def label_dependence(g: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The part of the label gradient that depends on the labels, from g (n, class, ...) -> (n, ...).

    With g_c the gradient of logit c and f_c the share of class c, the label gradient is
    sum_c (softmax_c - f_c) g_c + (sum_c f_c g_c - g_label). The first part knows nothing of the labels; the second has
    mean zero over all permutations of the labels, so it is what a shuffle can test. Taking off the means of g_c over
    the sequences changes no mean over sequences, but keeps what a class does to every sequence out of the noise.
    """
    shares = np.bincount(labels, minlength=g.shape[1]) / len(labels)
    centred = g - g.mean(0)
    return np.einsum("c,nc...->n...", shares, centred) - centred[np.arange(len(labels)), labels]


def shuffled_labels(
    logits: np.ndarray, g: np.ndarray, labels: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Null of the label-dependent mean and of the label gradient's t, (shuffle, ...) each.

    logits (n, class), g (n, class, ...) projections of the logits' gradients. Every shuffle is the exact answer of
    running the probe again with permuted labels.
    """
    n, classes = logits.shape
    probability = softmax(logits, axis=1)
    expected = np.einsum("nc,nc...->n...", probability, g)
    centre = np.einsum("c,nc...->...", np.bincount(labels, minlength=classes) / n, g) / n
    flat, squares = g.reshape(n * classes, -1), (expected[:, None] - g).reshape(n * classes, -1) ** 2
    generator = settings.draws("label shuffles")
    means, ts = [], []
    for first in range(0, settings.shuffles, SHUFFLES_AT_ONCE):
        count = min(SHUFFLES_AT_ONCE, settings.shuffles - first)
        chosen = np.zeros((count, n, classes))
        permuted = generator.permuted(np.tile(labels, (count, 1)), axis=1)
        np.put_along_axis(chosen, permuted[..., None], 1.0, axis=2)
        own = (chosen.reshape(count, -1) @ flat / n).reshape(count, *g.shape[2:])
        mean = expected.mean(0) - own
        variance = (chosen.reshape(count, -1) @ squares / n).reshape(mean.shape) - mean**2
        means.append(centre - own)
        ts.append(ratio(mean, np.sqrt(variance.clip(min=0) / (n - 1))))
    return np.concatenate(means), np.concatenate(ts)


def share_rows(gathered: dict[str, Gathered], space: ScoreSpace, settings: Settings) -> list[AlignmentRow]:
    """How much of the gradients depends on the offset only: of single ones, of their mean, and by chance."""
    rows = [
        AlignmentRow(
            layer=None, head=None, quantity="offset_share.chance", interval=_exact(chance_share(space), settings.level)
        )
    ]
    for name, g in gathered.items():
        band = bootstrap(
            g.offset_energy, g.energy, statistic=ratio, level=settings.level, generator=settings.draws(name, "share")
        )
        for layer, head in np.ndindex(band.estimate.shape):
            place = {"layer": layer, "head": head}
            single = band.interval(layer, head, unit="share")
            rows.append(AlignmentRow(quantity=f"{name}.offset_share", interval=single, **place))
            if "scores" in g.group_means:
                products = [_products(g.group_means[kind][:, layer, head]) for kind in ("offsets", "scores")]
                of_mean = _share_of_mean(products[0], products[1], settings, name)
                rows.append(AlignmentRow(quantity=f"{name}.offset_share.mean", interval=of_mean, **place))
    return rows


def chance_share(space: ScoreSpace) -> float:
    """Expected share of an isotropic random gradient whose rows sum to zero (class token included)."""
    kept, total = 0.0, 0.0
    counts = pair_counts(space.layout)[0].clamp(min=1)
    for rows in space.row_blocks(max(BLOCK // space.length, 1)):
        visible = space.visible(rows).double()
        variance = visible * (1 - 1 / (visible.sum(-1, keepdim=True) + space.leading))
        total += float(variance.sum())
        kept += float((space.fold(variance, rows) / counts).sum())
    return kept / total


def cosine_rows(gathered: dict[str, Gathered], settings: Settings) -> list[AlignmentRow]:
    """Do the two mean gradients point the same way: along scores, along offsets, and pulled back to W_Q and W_K?

    The corrected cosine uses products of different groups of sequences only; the raw one has no interval, because
    noise biases it.
    """
    label, reconstruction = gathered["label"].group_means, gathered["reconstruction"].group_means
    rows = []
    for where in label:
        for layer, head in np.ndindex(label[where].shape[1:3]):
            x, y = label[where][:, layer, head], reconstruction[where][:, layer, head]
            products = _products(x), _products(y), _products(x, y)
            raw = ratio(products[2].sum(), np.sqrt(products[0].sum() * products[1].sum()))
            corrected = noise_corrected_cosine_from_products(
                *products, level=settings.level, generator=settings.draws("cosine")
            )
            unknown = dataclasses.replace(corrected, estimate=float(raw), low=math.nan, high=math.nan)
            for quantity, interval in ((f"cosine.{where}", corrected), (f"cosine.{where}.raw", unknown)):
                rows.append(AlignmentRow(layer=layer, head=head, quantity=quantity, interval=interval))
    return rows


def _products(x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """Inner products between groups (group, group) of means (group, ...)."""
    x, y = (v.reshape(len(v), -1) for v in (x, x if y is None else y))
    products = np.zeros((len(x), len(y)))
    for first in range(0, x.shape[1], COLUMNS):  # a float64 copy of all of them may not fit
        part = np.s_[:, first : first + COLUMNS]
        products += x[part].astype(np.float64) @ y[part].T.astype(np.float64)
    return products


def _share_of_mean(part: np.ndarray, whole: np.ndarray, settings: Settings, loss: str) -> Interval:
    """Ratio of squared norms of mean gradients from products of different groups; NaN where noise is all there is."""

    def share(weights: np.ndarray) -> np.ndarray:
        of_part, of_whole = (np.einsum("ri,ij,rj->r", weights, m - np.diag(np.diag(m)), weights) for m in (part, whole))
        return np.where(of_whole > 0, ratio(of_part, of_whole), np.nan)

    n = len(whole)
    weights = drawn_counts(n, RESAMPLES, settings.draws(loss, "share of the mean")).astype(np.float64)
    band = band_from_replicates(share(np.ones((1, n)))[0], share(weights), level=settings.level, n=n)
    return band.interval(unit="share")


def _exact(value: float, level: float) -> Interval:
    return Interval(estimate=value, low=value, high=value, level=level, n=0, unit="share")
