"""The mean gradients as a whole: how much of them depends on the offset only, and their cosines."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from attnprobe.probes.alignment.gather import Gathered
from attnprobe.probes.alignment.labels import STREAM, label_dependence, shuffled_means
from attnprobe.probes.alignment.rows import AlignmentRow, Settings, ratio
from attnprobe.scores.directions import BLOCK, ScoreSpace
from attnprobe.scores.visible_sums import pair_counts
from attnprobe.statistics.cosines import between_different, noise_corrected_cosine_from_products
from attnprobe.statistics.intervals import RESAMPLES, Interval, band_from_replicates, bootstrap, drawn_counts
from attnprobe.statistics.permutations import null_band, permutation_p_value

COLUMNS = 2**16


def share_rows(gathered: dict[str, Gathered], space: ScoreSpace, settings: Settings) -> list[AlignmentRow]:
    """How much of the gradients depends on the offset only: of single ones, of their mean, and by chance."""
    valid = next(iter(gathered.values())).valid
    chance = _exact(chance_share(space, None if valid is None else torch.from_numpy(valid)), settings.level)
    rows = [AlignmentRow(layer=None, head=None, quantity="offset_share.chance", interval=chance)]
    for name, g in gathered.items():
        band = bootstrap(
            g.offset_energy, g.energy, statistic=ratio, level=settings.level, generator=settings.draws(name, "share")
        )
        for layer, head in np.ndindex(band.estimate.shape):
            place = {"layer": layer, "head": head}
            single = band.interval(layer, head, unit="share")
            rows.append(AlignmentRow(quantity=f"{name}.offset_share", interval=single, **place))
            if "scores" in g.group_means:
                part = "label.dependent" if name == "label" else name
                products = [_products(g.group_means[kind][:, layer, head]) for kind in ("offsets", "scores")]
                of_mean = _share_of_mean(products[0], products[1], settings, name)
                rows.append(AlignmentRow(quantity=f"{part}.offset_share.mean", interval=of_mean, **place))
    return rows


def chance_share(space: ScoreSpace, valid: Tensor | None = None) -> float:
    """Expected share of isotropic random gradients whose rows sum to zero (class token included).

    valid (n, length) bool: one gradient for each of these sequences, over its real pairs; by default no padding.
    """
    masks, times = (None, None) if valid is None else valid.cpu().unique(dim=0, return_counts=True)
    kept, total = 0.0, 0.0
    for number in range(1 if masks is None else len(masks)):
        mask, weight = (None, 1) if masks is None or times is None else (masks[number], int(times[number]))
        of_offset, of_all = _chance_energies(space, mask)
        kept, total = kept + weight * of_offset, total + weight * of_all
    return kept / total


def _chance_energies(space: ScoreSpace, mask: Tensor | None) -> tuple[float, float]:
    """Expected energy of one such gradient: of its part that depends on the offset only, and of all of it."""
    kept, total = 0.0, 0.0
    counts = pair_counts(space.layout, None if mask is None else mask[None])[0].clamp(min=1)
    for rows in space.row_blocks(max(BLOCK // space.length, 1)):
        visible, keys = space.visible(rows).double(), space.keys_seen(rows)
        if mask is not None:
            real = visible * mask
            keys = keys - (visible - real).sum(1)
            visible = real * mask[rows, None]
        variance = visible * (1 - 1 / keys.clamp(min=1)[:, None])
        total += float(variance.sum())
        kept += float((space.fold(variance, rows) / counts).sum())
    return kept, total


def cosine_rows(gathered: dict[str, Gathered], labels: np.ndarray, settings: Settings) -> list[AlignmentRow]:
    """Does the part of the label gradient that depends on the labels point where the reconstruction gradient points:
    along scores, along offsets, and pulled back to W_Q and W_K?

    The corrected cosine uses products of different groups of sequences only; the raw one has no interval, because
    noise biases it. The p-value is that of their inner product under shuffled labels, and the null what these give
    over the same two sizes.
    """
    label, reconstruction = gathered["label"], gathered["reconstruction"].group_means
    rows = []
    for where, means in label.group_means.items():
        inner = label.inner[where]  # n, class, layer, head
        n = len(labels)
        null = shuffled_means(inner, labels, settings.shuffles, settings.draws(STREAM))
        p_values = permutation_p_value(label_dependence(inner, labels).mean(0), null)
        for layer, head in np.ndindex(p_values.shape):
            x, y = means[:, layer, head], reconstruction[where][:, layer, head]
            products = _products(x), _products(y), _products(x, y)
            size = math.sqrt(products[0].mean() * products[1].mean())
            corrected = noise_corrected_cosine_from_products(
                *products, level=settings.level, generator=settings.draws("cosine")
            )
            raw = float(ratio(products[2].mean(), size))
            unknown = dataclasses.replace(corrected, estimate=raw, low=math.nan, high=math.nan)
            drawn = ratio(null[:, layer, head] * (n / (n - 1)), size)  # as group means are scaled
            band = null_band(drawn, level=settings.level, n=n).interval(unit="cosine")
            row = AlignmentRow(
                layer=layer, head=head, quantity=f"cosine.{where}", interval=corrected,
                p_value=float(p_values[layer, head]), draws=settings.shuffles,
            )  # fmt: skip
            others = {"raw": unknown, "null": band}
            rows.append(row)
            for what, interval in others.items():
                quantity = f"cosine.{where}.{what}"
                rows.append(dataclasses.replace(row, quantity=quantity, interval=interval, p_value=None, draws=None))
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
        of_part, of_whole = (between_different(weights, m) for m in (part, whole))
        return np.where(of_whole > 0, ratio(of_part, of_whole), np.nan)

    n = len(whole)
    weights = drawn_counts(n, RESAMPLES, settings.draws(loss, "share of the mean")).astype(np.float64)
    band = band_from_replicates(share(np.ones((1, n)))[0], share(weights), level=settings.level, n=n)
    return band.interval(unit="share")


def _exact(value: float, level: float) -> Interval:
    return Interval(estimate=value, low=value, high=value, level=level, n=0, unit="share")
