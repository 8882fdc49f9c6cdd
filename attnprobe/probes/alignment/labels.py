"""The part of a label gradient that depends on the labels, and its null under shuffled labels, by recombination."""

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

from attnprobe.probes.alignment.rows import Settings, ratio

SHUFFLES_AT_ONCE = 64
STREAM = "label shuffles"  # the same for every question, so that all see the same shuffles


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
    expected = np.einsum("nc,nc...->n...", softmax(logits, axis=1), g)
    shares = np.bincount(labels, minlength=classes) / n
    centre = np.einsum("c,c...->...", shares, g.mean(0))
    flat, squares = g.reshape(n * classes, -1), (expected[:, None] - g).reshape(n * classes, -1) ** 2
    means, ts = [], []
    for chosen in _relabellings(labels, classes, settings.shuffles, settings.draws(STREAM)):
        own = (chosen @ flat / n).reshape(len(chosen), *g.shape[2:])
        mean = expected.mean(0) - own
        variance = (chosen @ squares / n).reshape(mean.shape) - mean**2
        means.append(centre - own)
        ts.append(ratio(mean, np.sqrt(variance.clip(min=0) / (n - 1))))
    return np.concatenate(means), np.concatenate(ts)


def shuffled_means(
    g: np.ndarray, labels: np.ndarray, shuffles: int, generator: np.random.Generator, *, where: np.ndarray | None = None
) -> np.ndarray:
    """Mean of ``label_dependence`` under shuffled labels, (shuffle, ...).

    g (m, class, ...) of the sequences ``where`` (m,) among those of ``labels`` (n,); by default of all. Generators in
    the same state give the same shuffles of all labels, whatever is measured where.
    """
    m, classes = g.shape[:2]
    flat = (g - g.mean(0)).reshape(m * classes, -1)
    null = [-(chosen @ flat) / m for chosen in _relabellings(labels, classes, shuffles, generator, where)]
    return np.concatenate(null).reshape(shuffles, *g.shape[2:])


def _relabellings(
    labels: np.ndarray,
    classes: int,
    shuffles: int,
    generator: np.random.Generator,
    where: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Some shuffles at a time, as 0 and 1: (shuffle, m * class), of the m sequences ``where``."""
    for first in range(0, shuffles, SHUFFLES_AT_ONCE):
        count = min(SHUFFLES_AT_ONCE, shuffles - first)
        permuted = generator.permuted(np.tile(labels, (count, 1)), axis=1)
        permuted = permuted if where is None else permuted[:, where]
        chosen = np.zeros((*permuted.shape, classes))
        np.put_along_axis(chosen, permuted[..., None], 1.0, axis=2)
        yield chosen.reshape(count, -1)
