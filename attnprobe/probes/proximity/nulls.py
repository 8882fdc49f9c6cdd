"""Where the p-value of proximity_bias comes from: the same model without what training did to W_Q and W_K.

``init`` draws W_Q and W_K of all layers anew, as the initialisation does, and leaves everything else as it is. Before
training they are independent of all other weights and of the data. The model's own and the redrawn ones are then
exchangeable, given the rest, so the p-value is exact for every head of every layer and for the largest head: deeper
layers too, because all layers are redrawn together and both sides pass their own activations on. (With ``init`` "tied"
W_V and W_O start as copies of W_Q, of which the redrawn ones know nothing: there it is exact in the first layer only;
of 240 heads in second layers of untrained models 5.8 +- 1.5 % had p <= .05.) What follows from a small p-value is that
W_Q and W_K are not like those at the start.

``keys`` permutes the key positions of the scores as they are. It asks whether scores depend on where keys stand, which
those of random W_Q and W_K do as well: wherever neighbours look alike, or positions are told.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.footprint import peak_bytes
from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.heads import Heads
from attnprobe.probes.sequences import Progress, batches, position_channels
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.layout import Layout
from attnprobe.scores.visible_sums import contrast_keys, pair_counts, square_sum
from attnprobe.statistics.permutations import permutation_p_value, rank_p_value
from attnprobe.streams import stream

NullName = Literal["init", "keys", "none"]

MOST_SAMPLES, MOST_POSITIONS = 64, 2**13  # that the init null is drawn on: the spread between draws is far larger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Null:
    """proximity_bias of the heads of all layers as it is, and drawn under a null, both on the same samples."""

    name: str  # init or keys
    observed: np.ndarray  # (head,)
    drawn: np.ndarray  # (draw, head)
    samples: int  # how many they were computed on

    def p_values(self) -> np.ndarray:
        """(head,) of a bias of either sign."""
        return rank_p_value(self.observed, self.drawn)

    def p_value_of_largest(self, heads: slice) -> float:
        """Of the largest bias of these heads against the largest of each draw: the chance that any head gets there."""
        return float(permutation_p_value(*self.largest(heads), alternative="greater"))

    def largest(self, heads: slice) -> tuple[np.ndarray, np.ndarray]:
        """The largest bias of these heads: as it is, and (draw,)."""
        return np.fmax.reduce(self.observed[heads]), np.fmax.reduce(self.drawn[:, heads], axis=1)


def groups(heads: Heads) -> list[tuple[int | None, slice]]:
    """Among which heads the largest is sought: those of each layer, and of the model (None) if it has several."""
    layers: list[tuple[int | None, slice]] = [(layer, heads.within(layer)) for layer in range(len(heads.counts))]
    return layers if len(layers) == 1 else [*layers, (None, slice(heads.total))]


def null_for(subject: Subject, asked: NullName | None) -> tuple[NullName, int]:
    """The null (by default "init" where that can be had), and the bytes of the weights that it draws anew.

    NotApplicableError if they are asked for and cannot be drawn; and for "keys" within windows, where keys cannot trade
    places: a query would be given scores of keys that it never sees.
    """
    if asked == "keys" and subject.space.layout.reach is not None:
        reason = "keys cannot be permuted where windows limit who sees them"
        raise NotApplicableError(reason, hint="choose the null init, or none")
    if asked in ("keys", "none"):
        return asked, 0
    _ = subject.layers  # a model without scores is refused for that
    try:
        return "init", peak_bytes(lambda: subject.redrawn(0))
    except NotApplicableError:
        if asked == "init":
            raise
        return "none", 0


def null_samples(samples: np.ndarray, length: int) -> np.ndarray:
    """Those that the init null is drawn on, evenly among the samples."""
    most = max(1, min(MOST_SAMPLES, MOST_POSITIONS // length))
    return samples[:: -(-len(samples) // most)]


class Redraws:
    """proximity_bias of a subject and of others like it on the same samples: no bootstrap, no pattern, no profiles."""

    def __init__(self, subject: Subject, samples: np.ndarray, *, near: Tensor, far: Tensor,
                 layout: Layout, batch: int) -> None:  # fmt: skip
        """near, far: which offsets are; layout: that of the pairs; batch: samples per pass."""
        self.subject, self.samples, self.layout, self.batch = subject, samples, layout, batch
        self.heads = Heads.of(subject)
        counts = torch.zeros(layout.offsets, dtype=torch.float64)
        for _, part in batches(samples, batch):
            pairs = pair_counts(layout, subject.real(part)).cpu()
            counts += pairs.sum(0) * (len(part) * subject.per_sample / len(pairs))  # unpadded ones are counted once
        self.pairs = float(counts.sum())
        near_pairs, far_pairs = (float((counts * which).sum()) for which in (near, far))
        self.possible = near_pairs > 0 and far_pairs > 0  # longer samples among the others may have such pairs
        self.contrast = near.double() / max(near_pairs, 1.0) - far.double() / max(far_pairs, 1.0)

    def null(self, draws: int, seed: int, progress: Progress | None) -> Null:
        seeds = stream(seed, "redrawn W_Q and W_K").integers(2**62, size=draws)
        found = []
        for number, subject in enumerate(self._subjects(seeds.tolist())):
            found.append(self._bias(subject))
            if progress is not None:
                progress(number + 1, draws + 1)
        return Null(name="init", observed=found[0], drawn=np.stack(found[1:]), samples=len(self.samples))

    def _subjects(self, seeds: list[int]) -> Iterator[Subject]:
        yield self.subject
        for seed in seeds:
            yield self.subject.redrawn(seed)

    def _bias(self, subject: Subject) -> np.ndarray:
        """(head,)"""
        gap, squares = np.zeros(self.heads.total), np.zeros(self.heads.total)

        def add(call: AttentionCall, *, valid: Tensor | None) -> None:
            q, k = position_channels(subject, call)
            k = k - k.mean(-2, keepdim=True)  # changes no sum, but keeps rounding small
            u = contrast_keys(q, self.contrast, self.layout, scale=call.scale, valid=valid)
            heads = self.heads.within(call.layer)
            gap[heads] += (u * k).sum((0, 2, 3), dtype=torch.float64).cpu().numpy()
            total = square_sum(q, k, self.layout, scale=call.scale, valid=valid)
            squares[heads] += total.sum(0, dtype=torch.float64).cpu().numpy()

        for _, part in batches(self.samples, self.batch):
            subject.run(part, observe=functools.partial(add, valid=subject.real(part)))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((squares > 0) & self.possible, gap / np.sqrt(squares / self.pairs), np.nan)
