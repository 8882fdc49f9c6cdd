"""From per-sequence projections to rows with intervals, nulls and prices of detection."""

import dataclasses
import math

import numpy as np

from attnprobe.probes.alignment.arrangement import NullProjections, null_rows
from attnprobe.probes.alignment.gather import Gathered
from attnprobe.probes.alignment.labels import label_dependence, shuffled_labels
from attnprobe.probes.alignment.mean_gradients import cosine_rows, share_rows
from attnprobe.probes.alignment.rows import AlignmentRow, PricedSettings, Settings, scaled
from attnprobe.scores.directions import ScoreSpace
from attnprobe.statistics.detection import detection_prices
from attnprobe.statistics.intervals import bootstrap
from attnprobe.statistics.permutations import null_band, permutation_p_value, sign_flip_p_value
from attnprobe.statistics.ratios import simultaneous_ratio_bounds


def all_rows(
    gathered: dict[str, Gathered],
    labels: np.ndarray,
    names: list[str],
    null: NullProjections | None,
    space: ScoreSpace,
    settings: PricedSettings,
) -> list[AlignmentRow]:
    """Every quantity of ``Alignment``; ``names`` are those of the directions in the order of the projections."""
    pulled = gathered["reconstruction"]
    return [
        *label_rows(gathered["label"], labels, names, settings),
        *reconstruction_rows(pulled, names, settings),
        *(null_rows(pulled.projection, names, null, settings) if null is not None else []),
        *share_rows(gathered, space, settings),
        *ratio_rows(gathered["label"], pulled, labels, names, settings),
        *(cosine_rows(gathered, labels, settings) if len(gathered["label"].group_means["offsets"]) > 1 else []),
    ]


def direction_rows(
    samples: np.ndarray,
    quantity: str,
    names: list[str],
    settings: PricedSettings,
    *,
    p_values: np.ndarray | None = None,
) -> list[AlignmentRow]:
    """Mean, t and price of detection of per-sequence projections (n, layer, head, direction).

    The interval of t is that of the mean in standard errors.
    """
    band = bootstrap(samples, level=settings.level, generator=settings.draws(quantity, "bootstrap"))
    error = samples.std(0, ddof=1) / math.sqrt(len(samples))
    prices = detection_prices(samples, band, power=settings.power)
    needed = f"sequences at level {settings.level:g}, power {settings.power:g}"
    rows = []
    for layer, head, d in np.ndindex(band.estimate.shape):
        mean = band.interval(layer, head, d, unit="loss per unit score")
        in_errors = scaled(mean, float(error[layer, head, d]), "standard errors")
        price = prices.interval(layer, head, d, unit=needed)
        p = None if p_values is None else float(p_values[layer, head, d])
        row = AlignmentRow(
            layer=layer, head=head, direction=names[d], quantity=f"{quantity}.mean", interval=mean, p_value=p,
            draws=None if p is None else settings.shuffles,
        )  # fmt: skip
        rows.append(row)
        for what, interval in (("t", in_errors), ("sequences", price)):
            other = dataclasses.replace(row, quantity=f"{quantity}.{what}", interval=interval)
            rows.append(dataclasses.replace(other, p_value=None, draws=None))
    return rows


def reconstruction_rows(gathered: Gathered, names: list[str], settings: PricedSettings) -> list[AlignmentRow]:
    """p_value: sign flips, that is against a mean of zero."""
    samples = gathered.projection
    p_values = sign_flip_p_value(samples, permutations=settings.shuffles, generator=settings.draws("sign flips"))
    return direction_rows(samples, "reconstruction", names, settings, p_values=p_values)


def ratio_rows(
    label: Gathered, reconstruction: Gathered, labels: np.ndarray, names: list[str], settings: Settings
) -> list[AlignmentRow]:
    """How large the label-dependent mean could be beside that of reconstruction: one-sided intervals from zero, which
    hold together for all heads along a direction, so that the largest of any of them bounds these.
    """
    samples = label_dependence(label.projections, labels), reconstruction.projection
    layers, heads = samples[0].shape[1:3]
    together = (x.reshape(len(x), layers * heads, -1) for x in samples)
    band = simultaneous_ratio_bounds(*together, level=settings.level, generator=settings.draws("ratios"))
    return [
        AlignmentRow(
            layer=layer, head=head, direction=names[d], quantity="label_to_reconstruction",
            interval=band.interval(layer * heads + head, d, unit="ratio of absolute means"),
        )
        for layer, head, d in np.ndindex(layers, heads, len(names))
    ]  # fmt: skip


def label_rows(
    gathered: Gathered, labels: np.ndarray, names: list[str], settings: PricedSettings
) -> list[AlignmentRow]:
    """The label gradient, its shuffled-label null, and the part of it that depends on the labels."""
    logits, g = gathered.targets, gathered.projections
    dependent = label_dependence(g, labels)
    null_mean, null_t = shuffled_labels(logits, g, labels, settings)
    p_values = permutation_p_value(dependent.mean(0), null_mean)
    null = null_band(null_t, level=settings.level, n=len(labels))
    rows = direction_rows(gathered.projection, "label", names, settings)
    rows = [row for row in rows if row.quantity != "label.sequences"]  # more data only resolves the untrained readout
    rows += direction_rows(dependent, "label.dependent", names, settings, p_values=p_values)
    for layer, head, d in np.ndindex(null.estimate.shape):
        interval = null.interval(layer, head, d, unit="standard errors")
        rows.append(
            AlignmentRow(layer=layer, head=head, direction=names[d], quantity="label.t.null", interval=interval)
        )
    return rows
