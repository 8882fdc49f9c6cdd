"""Profiles over the offsets that follow the distance, and profiles of the same spectrum to compare them with."""

import torch
from torch import Tensor

from attnprobe.scores.layout import Layout
from attnprobe.scores.visible_sums import row_means


def proximity_profile(layout: Layout, radius: float) -> Tensor:
    """exp(-distance / radius), largest at a query's own position: float64 of shape ``layout.offsets``."""
    return torch.exp(-layout.distance() / radius)


def contrast_profile(layout: Layout, radius: float) -> Tensor:
    """``proximity_profile`` that leaves a position's score with itself alone: near others against far others."""
    return contrast(proximity_profile(layout, radius), layout)


def contrast(profile: Tensor, layout: Layout) -> Tensor:
    """The profile with such a value at offset 0 that the diagonal of its matrix, rows centred, is zero on average.

    Every row of a periodic kernel is centred alike, and the diagonal can vanish in each; near an edge a row has fewer
    near keys, so one value per offset can only do so on average over the rows. With n_i keys that query i sees and s_i
    the sum over the others among them, the centred diagonal is k (1 - 1 / n_i) - s_i / n_i, hence
    k = sum_i s_i / n_i / sum_i (1 - 1 / n_i); without causality that is the mean over all pairs of two positions.
    Shorter sequences keep this value.
    """
    own = tuple(size - 1 for size in layout.shape)
    others = profile.clone()
    others[own] = 0.0
    first, stop = layout.rule.bounds(layout.length)
    others[own] = row_means(others, layout).sum() / (1 - 1 / (stop - first).double()).sum()
    return others


def random_phases(profile: Tensor, noise: Tensor, layout: Layout) -> Tensor:
    """A real profile with the amplitude spectrum of ``profile`` and the phases of ``noise`` (same shape), then the
    ``contrast`` of it: as smooth as the profile, but it knows nothing of where near is.
    """
    phases = torch.fft.rfftn(noise)
    shifted = torch.fft.rfftn(profile).abs() * phases / phases.abs()
    return contrast(torch.fft.irfftn(shifted, s=profile.shape), layout)
