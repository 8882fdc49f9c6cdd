"""Scores as the sum of a position, a content and an interaction part, and each part's share of their variance.

A query is its mean plus the rest, q = a + x, and so is a key, k = b + y; hence q . k = a . b + x . y + (a . y + x . b),
exactly. The means run over sequences, at every position. Under rotary embedding they run over positions as well, and
before the rotation: then a . b is a function of the offset alone, which is all that a rotation can say about position.
"""

import dataclasses
import functools
import json

import numpy as np
import torch
from torch import Tensor

from attnprobe.config import require
from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall, Transformer
from attnprobe.models.positions import BASE, Rotary
from attnprobe.probes.memory import plan_memory
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import (
    Progress,
    by_sample,
    draw_samples,
    layout_of,
    load_sequences,
    part_of,
    position_channels,
)
from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import centre, product_sum, square_sum
from attnprobe.statistics.intervals import Band, bootstrap
from attnprobe.tasks import Split

PARTS = ("position", "content", "interaction")

Channels = tuple[Tensor, Tensor]  # queries and keys whose inner products are a part of the scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decomposition:
    """What ``measure`` returns; quantities are described there."""

    rows: list[Measurement]
    n: int
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
    model: Transformer,
    split: Split,
    *,
    n: int = 256,
    level: float = 0.95,
    memory_limit: int = 2 * 2**30,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> Decomposition:
    """Shares of score variance per layer and head, with bootstrap intervals over sequences.

    ``position_share``, ``content_share`` and ``interaction_share`` (share of variance): covariance of the part with
    the scores / variance of the scores, over all visible pairs, both centred per query. They sum to 1; a part that
    works against the others has a negative share. The means are those of the same ``n`` sequences, so about 1/n of the
    content passes for position. Class token and padding are left out as in the proximity probe.
    ``progress`` is told (samples done, samples to do); each is read twice.

    Raises ConfigError for impossible settings, NotApplicableError with fewer than two sequences or positions.
    """
    require(n >= 2, "n", f"must be at least 2 sequences, got {n}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    layout = layout_of(model, split)
    chosen = draw_samples(split, n, generator)
    if len(chosen) < 2:
        raise NotApplicableError("position and content cannot be told apart with one sequence", hint="use more data")
    plan = plan_memory(
        model, layout, samples=len(chosen), permutations=0, memory_limit=memory_limit, padded=split.lengths is not None
    )
    means, shares = _Means(model, layout), _Shares(model, layout, len(chosen))
    with torch.inference_mode():
        for number, gather in enumerate((means.add, functools.partial(shares.add, means))):
            report = part_of(progress, number, 2)
            for start in range(0, len(chosen), plan.batch):
                index = chosen[start : start + plan.batch]
                inputs, valid = load_sequences(model, split, index)
                span = slice(start, start + len(index))
                model(inputs, valid=valid, observe=functools.partial(gather, valid=valid, samples=span))
                if report is not None:
                    report(start + len(index), len(chosen))
    return shares.result(level, generator)


def rotary_of(model: Transformer, layer: int) -> Rotary | None:
    return model.blocks[layer].attention.rotary  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]


def unrotate(x: Tensor, rotary: Rotary, first: int = 0) -> Tensor:
    """The inverse of ``rotary`` on positions first, first + 1, ...: (batch, head, length, d_head) -> the same."""
    cos, sin = (t[first : first + x.shape[-2]].to(x.dtype) for t in (rotary.cos, rotary.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos + odd * sin, odd * cos - even * sin], dim=-1).flatten(-2)


class _Means:
    """Mean queries and keys of every layer, (2, head, length, d_head)."""

    def __init__(self, model: Transformer, layout: Layout) -> None:
        self.model, self.first = model, int(model.config.readout == "token")
        self.sums: dict[int, Tensor] = {}
        self.counts = torch.zeros(layout.length)

    def add(self, call: AttentionCall, *, valid: Tensor | None, samples: slice) -> None:
        channels = torch.stack(position_channels(self.model, call))
        rotary = rotary_of(self.model, call.layer)
        if rotary is not None:
            channels = unrotate(channels, rotary, self.first)
        if valid is not None:
            channels = channels * valid[:, None, :, None]
        sums = channels.sum(1)
        self.sums[call.layer] = self.sums[call.layer] + sums if call.layer in self.sums else sums
        if call.layer == 0:
            real = channels.new_ones(channels.shape[1], channels.shape[3]) if valid is None else valid.to(sums.dtype)
            self.counts = self.counts.to(sums) + real.sum(0)

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Mean queries and mean keys, as they enter the scores: (head, length, d_head) each."""
        sums, rotary = self.sums[layer], rotary_of(self.model, layer)
        if rotary is None:
            means = sums / self.counts.clamp(min=1)[:, None]
        else:
            mean = sums.sum(-2, keepdim=True) / self.counts.sum()
            length = self.first + sums.shape[-2]
            means = rotary(mean.expand(-1, -1, length, -1))[..., self.first :, :]
        return means[0], means[1]


class _Shares:
    """Sums over pairs of (part * scores), sample by sample."""

    def __init__(self, model: Transformer, layout: Layout, n: int) -> None:
        config = model.config
        self.model, self.layout, self.n = model, layout, n
        rotary = rotary_of(model, 0)
        self.frequencies = None if rotary is None else _frequencies(config.d_model // config.heads)
        parts = len(PARTS) if self.frequencies is None else len(PARTS) + len(self.frequencies)
        self.covariance = np.zeros((n, config.layers, config.heads, parts))
        self.variance = np.zeros((n, config.layers, config.heads, 1))

    def add(self, means: _Means, call: AttentionCall, *, valid: Tensor | None, samples: slice) -> None:
        q, k = position_channels(self.model, call)
        parts = list(split_scores(q, k, *means.of(call.layer)).values())
        if self.frequencies is not None:
            parts += [(q[..., i : i + 2], k[..., i : i + 2]) for i in range(0, q.shape[-1], 2)]
        causal = self.layout.causal
        whole = centre(q, k, valid, causal=causal)
        for i, part in enumerate(parts):
            sums = product_sum(centre(*part, valid, causal=causal), whole, self.layout)
            self.covariance[samples, call.layer, :, i] = by_sample(self.model, sums).double().cpu().numpy()
        variance = square_sum(q, k, self.layout, scale=1.0, valid=valid)
        self.variance[samples, call.layer, :, 0] = by_sample(self.model, variance).double().cpu().numpy()

    def result(self, level: float, generator: np.random.Generator) -> Decomposition:
        band = bootstrap(self.covariance, self.variance, statistic=_share, level=level, generator=generator)
        rows = [
            Measurement(
                layer=layer,
                head=head,
                quantity=f"{part}_share",
                interval=band.interval(layer, head, i, unit="share of variance"),
            )
            for i, part in enumerate(PARTS)
            for layer, head in np.ndindex(*band.estimate.shape[:2])
        ]
        by_frequency = None
        if self.frequencies is not None:
            estimate, low, high = (a[..., len(PARTS) :] for a in (band.estimate, band.low, band.high))
            by_frequency = Band(estimate=estimate, low=low, high=high, level=level, n=self.n)
        return Decomposition(rows=rows, n=self.n, frequencies=self.frequencies, frequency_share=by_frequency)


def _share(covariance: np.ndarray, variance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, covariance / variance, np.nan)


def _frequencies(d_head: int) -> np.ndarray:
    return BASE ** (-np.arange(0, d_head, 2) / d_head)
