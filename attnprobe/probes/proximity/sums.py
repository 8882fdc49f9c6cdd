"""The sums behind the proximity probe, gathered batch by batch while the model runs."""

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.heads import Heads
from attnprobe.probes.memory import Plan
from attnprobe.probes.proximity.nulls import Null
from attnprobe.probes.sequences import by_sample, position_channels
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.visible_sums import (
    contrast_keys,
    pair_counts,
    pattern_moments,
    row_means,
    score_sums,
    square_sum,
)
from attnprobe.statistics.bands import Profile, RatioBands
from attnprobe.statistics.key_permutation import KeyPermutationNull

PER_HEAD = ("near_score", "far_score", "squares", "near_mass", "distance", "entropy")
PER_SAMPLE = ("near_pairs", "far_pairs", "pairs", "queries", "uniform")

ALIKE = 1e-6  # of the largest: below it sums differ by rounding only


class ProximitySums:
    """Sums over pairs and queries, sample by sample, from which every quantity is a ratio."""

    def __init__(
        self, subject: Subject, *, n: int, radius: float, include_self: bool, plan: Plan,
        keys: KeyPermutationNull | None,
    ) -> None:  # fmt: skip
        """keys: the null of permuted keys, which is handed everything it needs on the way."""
        self.subject, self.radius, self.n, self.plan, self.keys = subject, radius, n, plan, keys
        self.layout, self.heads = subject.space.layout, Heads.of(subject)
        self.paired = dataclasses.replace(self.layout, self_pairs=include_self)  # whose pairs have scores that count
        self.distance = self.layout.distance()
        self.near, self.far = (self.distance <= radius), (self.distance > radius)
        self.near &= include_self | (self.distance > 0)
        self.per_head = {name: np.zeros((n, self.heads.total)) for name in PER_HEAD}
        self.per_sample = {name: np.zeros((n, 1)) for name in PER_SAMPLE}
        counts = self.heads.counts
        self.scores, self.masses = (RatioBands(counts, self.layout.offsets) for _ in range(2))
        self.rings = self.distance.round().long() if len(self.layout.shape) == 2 else None
        if self.rings is not None:
            self.ring_scores, self.ring_masses = (RatioBands(counts, (int(self.rings.max()) + 1,)) for _ in range(2))

    def count(self, samples: slice, valid: Tensor | None) -> None:
        """What depends on lengths only: pairs, queries, and the near mass of uniform attention."""
        pairs = pair_counts(self.paired, valid).flatten(1).cpu()
        own = pair_counts(self.layout, valid).flatten(1).cpu()
        near = self.near.double().flatten()
        values = {
            "near_pairs": pairs @ near,
            "far_pairs": pairs @ self.far.double().flatten(),
            "pairs": pairs.sum(-1),
            "queries": own[:, own.shape[1] // 2],
            "uniform": row_means(self.near, self.layout, valid).sum(-1).cpu(),
        }
        for name, value in values.items():
            value = value.expand((samples.stop - samples.start) * self.subject.per_sample)
            self.per_sample[name][samples, 0] = by_sample(self.subject, value).numpy()

    def check_pairs(self) -> None:
        """NotApplicableError if there is no near or no far pair at all; once all samples are counted."""
        for which, name in (("within", "near_pairs"), ("beyond", "far_pairs")):
            if not self.per_sample[name].any():
                reason = f"no pair of positions lies {which} radius {self.radius:g}"
                raise NotApplicableError(reason, hint="change radius")

    @functools.cached_property
    def contrast(self) -> Tensor:
        """Weights by offset whose sum with the centred scores is mean near - mean far, over the whole set; once all
        samples are counted.
        """
        near, far = self.per_sample["near_pairs"].sum(), self.per_sample["far_pairs"].sum()
        return self.near.double() / near - self.far.double() / far

    def add(self, call: AttentionCall, *, samples: slice, valid: Tensor | None) -> None:
        """One layer on one batch; the null of permuted keys follows the weights ``contrast``."""
        q, k = position_channels(self.subject, call)
        layout, scale = self.paired, call.scale
        score = score_sums(q, k, layout, scale=scale, valid=valid, block_bytes=self.plan.block_bytes)
        mass, entropy = pattern_moments(q, k, self.layout, scale=scale, valid=valid, tile=self.plan.tile)
        near, far, distance = (t.to(q).flatten() for t in (self.near, self.far, self.distance))
        values = {
            "near_score": score.flatten(2) @ near,
            "far_score": score.flatten(2) @ far,
            "squares": square_sum(q, k, layout, scale=scale, valid=valid),
            "near_mass": mass.flatten(2) @ near,
            "distance": mass.flatten(2) @ distance,
            "entropy": entropy,
        }
        heads = self.heads.within(call.layer)
        for name, value in values.items():
            self.per_head[name][samples, heads] = by_sample(self.subject, value).double().cpu().numpy()
        self._add_profiles(call.layer, score, mass, pair_counts(layout, valid), samples)
        if self.keys is not None:
            self.keys.add(call.layer, contrast_keys(q, self.contrast, layout, scale=scale, valid=valid), k, valid)

    def _add_profiles(self, layer: int, score: Tensor, mass: Tensor, pairs: Tensor, samples: slice) -> None:
        score, mass, pairs = (t.double().cpu() for t in (score, mass, pairs))
        pairs = pairs.expand(len(score), *self.layout.offsets)
        score, mass, pairs = (by_sample(self.subject, t) for t in (score, mass, pairs))
        queries = torch.from_numpy(self.per_sample["queries"][samples, 0])
        self.scores.add(layer, score, pairs)
        self.masses.add(layer, mass, queries.view(-1, *[1] * len(self.layout.shape)))
        if self.rings is not None:
            score, mass, pairs = (self._by_ring(t) for t in (score, mass, pairs))
            self.ring_scores.add(layer, score, pairs)
            self.ring_masses.add(layer, mass, queries[:, None])

    def _by_ring(self, t: Tensor) -> Tensor:
        assert self.rings is not None
        sums = t.new_zeros(*t.shape[:-2], int(self.rings.max()) + 1)
        return sums.index_add_(-1, self.rings.flatten(), t.flatten(-2))

    def check_scores(self) -> None:
        """NotApplicableError if scores are not finite, do not vary, or if several samples are alike to every head."""
        squares = self.per_head["squares"]
        if not np.isfinite(squares).all():
            reason = "queries and keys are so large that their scores are not finite"
            raise NotApplicableError(reason, hint="the training may have diverged")
        if not squares.any():
            reason = "in every head all scores of a query are equal, so there is nothing that could prefer near keys"
            raise NotApplicableError(reason, hint="choose a checkpoint whose W_Q and W_K are not zero")
        spread = max(float(np.ptp(sums, 0).max()) / max(float(np.abs(sums).max()), 1e-300) for sums in self._all())
        if self.n > 1 and spread < ALIKE:
            reason = f"all {self.n} sequences have the same scores, so they say nothing of others"
            raise NotApplicableError(reason, hint="measure on sequences that differ")

    def _all(self) -> list[np.ndarray]:
        return [*self.per_head.values(), *self.per_sample.values()]

    def null_of(self, keys: KeyPermutationNull) -> Null:
        """The gaps of ``keys`` in standard deviations of the scores, which permutations do not change."""
        sd = self.sd_of_heads()
        with np.errstate(divide="ignore", invalid="ignore"):
            observed, drawn = (np.where(sd > 0, gaps / sd, np.nan) for gaps in keys.finish())
        return Null(name="keys", observed=observed, drawn=drawn, samples=self.n)

    def sd_of_heads(self) -> np.ndarray:
        return np.sqrt(self.per_head["squares"].sum(0) / self.per_sample["pairs"].sum())

    def sd(self) -> np.ndarray:
        """Standard deviation of the centred scores over all visible pairs of all samples: (layer, head), else NaN."""
        return self.heads.table(self.sd_of_heads())

    def profiles(self, level: float) -> tuple[Profile, Profile | None]:
        """The profile along one axis, and on a grid the map."""
        scores, masses = self.scores.band(level, self.n), self.masses.band(level, self.n)
        axes = [np.arange(1 - size, size) for size in self.layout.shape]
        if self.rings is None:
            return Profile(axes={"offset": axes[0]}, score=scores, mass=masses), None
        distance = np.arange(int(self.rings.max()) + 1)
        by_distance = Profile(
            axes={"distance": distance},
            score=self.ring_scores.band(level, self.n),
            mass=self.ring_masses.band(level, self.n),
        )
        return by_distance, Profile(axes={"offset_y": axes[0], "offset_x": axes[1]}, score=scores, mass=masses)
