"""Scores as the sum of a position, a content and an interaction part, and each part's share of their variance.

A query is its mean plus the rest, q = a + x, and so is a key, k = b + y; hence q . k = a . b + x . y + (a . y + x . b),
exactly. The means run over sequences, at every position. Under rotary embedding they run over positions as well, and
before the rotation: then a . b is a function of the offset alone, which is all that a rotation can say about position.
"""

import dataclasses
import functools
import json
import math

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.probes.heads import Heads
from attnprobe.probes.memory import MEMORY_LIMIT, Plan, plan_memory
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import Progress, batches, by_sample, part_of, position_channels
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.visible_sums import products_with, square_sum
from attnprobe.statistics.intervals import Band, bootstrap
from attnprobe.statistics.jackknife import dealt, grouped_jackknife
from attnprobe.streams import stream

PARTS = ("position", "content", "interaction")

Channels = tuple[Tensor, Tensor]  # queries and keys whose inner products are a part of the scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decomposition:
    """What ``measure`` returns; quantities are described there."""

    rows: list[Measurement]
    samples: np.ndarray  # (n,) those that were measured
    frequencies: np.ndarray | None  # rotary: angular frequency of every channel pair, radians per position
    frequency_share: Band | None  # rotary: (layer, head, frequency), sums to 1 over frequencies

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        shape = (1 + max(row.layer or 0 for row in self.rows), 1 + max(row.head or 0 for row in self.rows), len(PARTS))
        arrays: dict[str, np.ndarray] = {}
        for part in ("estimate", "low", "high"):
            values = [getattr(row.interval, part) for row in self.rows]
            arrays[f"share_{part}"] = np.full(shape, np.nan)
            for row, value in zip(self.rows, values, strict=True):
                place = (row.layer, row.head, PARTS.index(row.quantity.removesuffix("_share")))
                arrays[f"share_{part}"][place] = value
        names = {name: ["layer", "head", "part"] for name in arrays}
        if self.frequencies is not None and self.frequency_share is not None:
            arrays["frequency"], names["frequency"] = self.frequencies, ["frequency"]
            for part in ("estimate", "low", "high"):
                name = f"frequency_share_{part}"
                arrays[name], names[name] = getattr(self.frequency_share, part), ["layer", "head", "frequency"]
        return arrays | {"part": np.array(PARTS), "axes": np.array(json.dumps(names | {"part": ["part"]}))}


def split_scores(q: Tensor, k: Tensor, mean_q: Tensor, mean_k: Tensor) -> dict[str, Channels]:
    """Channels of the three parts: position + content + interaction = q . k for every pair.

    q, k: (batch, head, length, d_head); the means broadcast to them. The interaction has twice the channels.
    """
    mean_q, mean_k = mean_q.expand_as(q), mean_k.expand_as(k)
    x, y = q - mean_q, k - mean_k
    interaction = torch.cat([mean_q, x], -1), torch.cat([y, mean_k], -1)
    return {"position": (mean_q, mean_k), "content": (x, y), "interaction": interaction}


def measure(
    subject: Subject,
    *,
    n: int = 256,
    level: float = 0.95,
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Decomposition:
    """Shares of score variance per layer and head, with intervals over sequences.

    ``position_share``, ``content_share`` and ``interaction_share`` (share of variance): covariance of the part with
    the scores / variance of the scores, over all visible pairs, both centred per query. They sum to 1; a part that
    works against the others has a negative share. The means are those of the same ``n`` sequences, so plain shares
    would pass about 1/n of the content for position, and hide that other sequences have other means. So each share
    is computed again without each of 10 groups of sequences, means included, and intervals and estimates are those of
    the jackknife. Leading tokens and padding are left out as in the proximity probe.
    ``progress`` is told (samples done, samples to do); each is read twice.

    Raises ConfigError for impossible settings, NotApplicableError with fewer than two sequences or positions, or for a
    model with rotary positions and a score profile.
    """
    require(n >= 2, "n", f"must be at least 2 sequences, got {n}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    samples = subject.draw(n, seed)
    if len(samples) < 2:
        raise NotApplicableError("position and content cannot be told apart with one sequence", hint="use more data")
    groups = dealt(len(samples))
    plan = _plan(subject, samples, groups, memory_limit)
    means, shares = _Means(subject, groups), _Shares(subject, samples, groups)
    with torch.inference_mode():
        for number, gather in enumerate((means.add, functools.partial(shares.add, means))):
            for span, part in batches(samples, plan.batch, part_of(progress, number, 2)):
                subject.run(part, observe=functools.partial(gather, valid=subject.real(part), samples=span))
    return shares.result(level, seed)


def _plan(subject: Subject, samples: np.ndarray, groups: np.ndarray, memory_limit: int) -> Plan:
    """Sums of queries and keys are kept for every group; the rest as for other sums over pairs."""
    kept = sum(
        2 * (1 + groups.max()) * layer.heads * layer.channels * subject.space.length * max(4, layer.dtype.itemsize)
        for layer in subject.layers
    )
    if kept > memory_limit // 2:
        reason = f"memory_limit is too small: mean queries and keys of {1 + groups.max()} groups need about"
        raise ConfigError(f"{reason} {math.ceil(2 * kept / 2**20)} MiB", hint="raise it, or measure shorter sequences")
    return plan_memory(subject, samples, permutations=0, memory_limit=memory_limit - int(kept))


class _Means:
    """Sums of the queries and keys of every layer and group of samples, (group, 2, head, length, d_head)."""

    def __init__(self, subject: Subject, groups: np.ndarray) -> None:
        self.subject, self.rotation = subject, subject.rotation
        self.groups = torch.from_numpy(groups).repeat_interleave(subject.per_sample)
        self.number = 1 + int(groups.max())
        self.sums: dict[int, Tensor] = {}
        self.counts = torch.zeros(self.number, subject.space.length)

    def add(self, call: AttentionCall, *, valid: Tensor | None, samples: slice) -> None:
        if call.softcap is not None or not call.projected:
            reason = f"the scores of layer {call.layer} were not seen as products of queries and keys"
            raise NotApplicableError(reason, hint="only such scores have a position and a content part")
        channels = torch.stack(position_channels(self.subject, call), 1)  # (sequence, 2, head, length, d_head)
        if self.rotation is not None:
            if call.bias is not None:
                reason = "a model with rotary positions and a score profile has two parts that position explains"
                raise NotApplicableError(reason, hint="decompose one without model.score_profile")
            channels = self.rotation.back(channels)
        if valid is not None:
            channels = channels * valid[:, None, None, :, None]
        groups = self.of_samples(samples).to(channels.device)
        if call.layer not in self.sums:
            self.sums[call.layer] = channels.new_zeros(self.number, *channels.shape[1:])
        self.sums[call.layer].index_add_(0, groups, channels)
        if call.layer == 0:
            real = channels.new_ones(len(channels), channels.shape[3]) if valid is None else valid.to(channels.dtype)
            self.counts = self.counts.to(channels).index_add(0, groups, real)

    def of_samples(self, samples: slice) -> Tensor:
        """The group of every sequence of these samples."""
        both = self.subject.per_sample
        return self.groups[samples.start * both : samples.stop * both]

    def without(self, layer: int, group: int | None) -> tuple[Tensor, Tensor]:
        """Mean queries and keys of all other groups, as they enter the scores: (head, length, d_head) each."""
        sums, counts = self.sums[layer].sum(0), self.counts.sum(0)
        if group is not None:
            sums, counts = sums - self.sums[layer][group], counts - self.counts[group]
        if self.rotation is None:
            means = sums / counts.clamp(min=1)[:, None]
        else:
            mean = sums.sum(-2, keepdim=True) / counts.sum()
            means = self.rotation.turn(mean.expand_as(sums))
        return means[0], means[1]


class _Shares:
    """Sums over pairs of (part * scores): of all sequences, and of all but one group with the means of just those."""

    def __init__(self, subject: Subject, samples: np.ndarray, groups: np.ndarray) -> None:
        self.subject, self.samples, self.groups, self.heads = subject, samples, groups, Heads.of(subject)
        self.sizes = np.bincount(groups)
        self.frequencies = None if subject.rotation is None else subject.rotation.frequencies
        # The last is that of all sequences.
        self.covariance = np.zeros((len(self.sizes) + 1, self.heads.total, len(PARTS)))
        self.variance = np.zeros((len(samples), self.heads.total, 1))
        self.by_frequency = np.zeros(
            (len(samples), self.heads.total, 0 if self.frequencies is None else len(self.frequencies))
        )

    def add(self, means: _Means, call: AttentionCall, *, valid: Tensor | None, samples: slice) -> None:
        q, k = position_channels(self.subject, call)
        layout, heads = self.subject.space.layout, self.heads.within(call.layer)
        product = products_with(q, k, layout, valid=valid)

        def with_scores(part: Channels) -> Tensor:
            return product(*part).double()

        variance = square_sum(q, k, layout, scale=1.0, valid=valid).double()
        self.variance[samples, heads, 0] = by_sample(self.subject, variance).cpu().numpy()
        groups = means.of_samples(samples).to(q.device)
        for group in (*range(len(self.sizes)), None):
            parts = split_scores(q, k, *means.without(call.layer, group))
            position, content = (with_scores(parts[name]) for name in ("position", "content"))
            sums = torch.stack([position, content, variance - position - content], -1)  # (sequence, head, part)
            if group is not None:
                sums = sums[groups != group]
            self.covariance[-1 if group is None else group, heads] += sums.sum(0).cpu().numpy()
        for i in range(self.by_frequency.shape[-1]):
            of_pair = with_scores((q[..., 2 * i : 2 * i + 2], k[..., 2 * i : 2 * i + 2]))
            self.by_frequency[samples, heads, i] = by_sample(self.subject, of_pair).cpu().numpy()

    def result(self, level: float, seed: int) -> Decomposition:
        variance = np.stack([self.variance[self.groups != group].sum(0) for group in range(len(self.sizes))])
        whole = _share(self.covariance[-1], self.variance.sum(0))
        band = grouped_jackknife(whole, _share(self.covariance[:-1], variance), self.sizes, level=level)
        rows = [
            Measurement(
                layer=layer,
                head=head,
                quantity=f"{part}_share",
                interval=band.interval(number, i, unit="share of variance"),
            )
            for i, part in enumerate(PARTS)
            for number, (layer, head) in enumerate(self.heads.places())
        ]
        by_frequency = None if self.frequencies is None else self._by_frequency(level, seed)
        return Decomposition(
            rows=rows, samples=self.samples, frequencies=self.frequencies, frequency_share=by_frequency
        )

    def _by_frequency(self, level: float, seed: int) -> Band:
        """No means enter here, so the bootstrap of a ratio of means will do."""
        draws = stream(seed, "bootstrap of shares")
        band = bootstrap(self.by_frequency, self.variance, statistic=_share, level=level, generator=draws)
        estimate, low, high = (self.heads.table(values) for values in (band.estimate, band.low, band.high))
        return Band(estimate=estimate, low=low, high=high, level=level, n=band.n)


def _share(covariance: np.ndarray, variance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, covariance / variance, np.nan)
