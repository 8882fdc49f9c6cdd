"""Proximity bias: how much higher a head scores keys near the query, and what the softmax makes of it."""

import dataclasses
import functools
import json
from typing import get_args

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.errors import ConfigError
from attnprobe.probes.heads import Heads
from attnprobe.probes.memory import MEMORY_LIMIT, plan_memory
from attnprobe.probes.proximity.nulls import Null, NullName, Redraws, groups, null_for, null_samples
from attnprobe.probes.proximity.quantities import ProximityRow, quantities
from attnprobe.probes.proximity.sums import ProximitySums
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.layout import Layout
from attnprobe.statistics.bands import Profile
from attnprobe.statistics.intervals import Interval, bootstrap
from attnprobe.statistics.key_permutation import KeyPermutationNull
from attnprobe.statistics.permutations import least_draws
from attnprobe.streams import stream

SEQUENCE_RADIUS, GRID_RADIUS = 3.0, 1.5  # positions; pixels: the eight neighbours
DRAWS = 99  # of the null, unless the level needs more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proximity:
    """What ``measure`` returns; quantities are described there."""

    rows: list[ProximityRow]
    layout: Layout
    radius: float
    samples: np.ndarray  # (n,) those that were measured
    heads: Heads
    sd: np.ndarray  # (layer, head) standard deviation of the centred scores
    profile: Profile  # by offset along a sequence; by distance, rounded to whole pixels, on a grid
    map: Profile | None  # by (offset_y, offset_x) on a grid
    null: Null | None
    sums: dict[str, np.ndarray]  # per sample (n, head of all layers or 1), which the quantities are made of

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        arrays: dict[str, np.ndarray] = {"sd": self.sd}
        names: dict[str, list[str]] = {"sd": ["layer", "head"]}
        for prefix, profile in (("profile", self.profile), ("map", self.map)):
            if profile is None:
                continue
            for name, values in profile.axes.items():
                arrays[name], names[name] = values, [name]
            for quantity, band in (("score", profile.score), ("mass", profile.mass)):
                for part in ("estimate", "low", "high"):
                    key = f"{prefix}_{quantity}_{part}"
                    arrays[key], names[key] = getattr(band, part), ["layer", "head", *profile.axes]
        return arrays | {"axes": np.array(json.dumps(names))}


def measure(
    subject: Subject,
    *,
    radius: float | None = None,
    n: int = 256,
    level: float = 0.95,
    null: NullName | None = None,
    draws: int | None = None,
    include_self: bool = True,
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proximity:
    """Proximity of every layer and head on ``n`` samples of a subject (all, if it has fewer).

    Scores are centred per query over its visible keys. A pair is near if its distance (|offset|, or Euclidean on a
    pixel grid) is at most ``radius``: 3 positions or 1.5 pixels by default. A position is near itself unless
    ``include_self`` is false: then its own score is none of the pairs, neither near nor centred over nor in the
    standard deviation (attention patterns stay those of the model). Per layer and head, with bootstrap intervals over
    sequences:

    - ``proximity_bias`` (sd of scores): (mean centred score of near pairs - mean of the others) / standard deviation
      of the centred scores. p_value: of either sign, by ``null``.
    - ``score_sd`` (score): that standard deviation.
    - ``near_mass`` (x uniform): pattern mass on near keys / what uniform attention would put there.
    - ``distance`` (positions or pixels): mean distance of the attended key, weighted by the pattern.
    - ``entropy`` (nats): mean entropy of the pattern, per query.

    ``proximity_bias.max`` is that of the head with the largest in a layer (and in the model, layer None, if it has
    several): the interval is that of this head and leaves out that it was chosen; the p-value does not, it compares
    with the largest head of every draw.

    null: "init" draws W_Q and W_K of all layers anew as they started, "keys" permutes key positions, "none" gives no
    p-values; ``nulls`` says what they test. By default "init" if the subject can be redrawn, else "none". draws: of
    the null, 99 by default, or as many as the smallest p-value needs to get down to 1 - level. "init" uses 64 of the
    samples at most, fewer where sequences are long.

    Leading tokens (a class token) have no place among the positions: they are left out as queries and as keys, and the
    patterns are those among the other positions. So are padded positions, even if the model attends to them. Under
    causality the earliest queries, which see few keys, count like all others. Layers may differ in their heads. Memory
    beyond weights and data stays below ``memory_limit`` bytes. ``progress`` is told (samples done, samples), those of
    the draws included.

    Raises ConfigError for impossible settings, NotApplicableError if there are fewer than two positions, no near or no
    far pair, activations that are not finite (naming layer and head), scores that are equal in every head, several
    samples that are all the same, or if W_Q and W_K cannot be drawn anew though ``null`` says so.
    """
    layout = subject.space.layout
    radius = (SEQUENCE_RADIUS if len(layout.shape) == 1 else GRID_RADIUS) if radius is None else radius
    _check(radius=radius, n=n, level=level, null=null)
    samples = subject.draw(n, seed)
    null, weights = null_for(subject, null)
    draws = _draws(null, draws, level)
    permutations = draws if null == "keys" else 0
    plan = plan_memory(subject, samples, permutations=permutations, weights=weights, memory_limit=memory_limit)
    generator = stream(seed, "key permutations")
    keys = (
        KeyPermutationNull(layout.length, permutations, matrix=plan.null_matrix, generator=generator)
        if null == "keys"
        else None
    )
    sums = ProximitySums(subject, n=len(samples), radius=radius, include_self=include_self, plan=plan, keys=keys)
    drawn_on = null_samples(samples, layout.length) if null == "init" else samples[:0]
    total = len(samples) + len(drawn_on) * (1 + draws)
    for span, part in batches(samples, plan.batch):
        sums.count(span, subject.real(part))
    sums.check_pairs()
    with torch.inference_mode():
        for span, part in batches(samples, plan.batch, _counted(progress, 0, 1, total)):
            subject.run(part, observe=functools.partial(sums.add, samples=span, valid=subject.real(part)))
        sums.check_scores()
        found = None if keys is None else sums.null_of(keys)
        if null == "init":
            redraws = Redraws(subject, drawn_on, near=sums.near, far=sums.far, layout=sums.paired, batch=plan.batch)
            found = redraws.null(draws, seed, _counted(progress, len(samples), len(drawn_on), total))
    profile, grid = sums.profiles(level)
    return Proximity(
        rows=_rows(sums, found, level, seed),
        layout=layout,
        radius=radius,
        samples=samples,
        heads=sums.heads,
        sd=sums.sd(),
        profile=profile,
        map=grid,
        null=found,
        sums=sums.per_head | sums.per_sample,
    )


def _counted(progress: Progress | None, before: int, each: int, total: int) -> Progress | None:
    """For a part that comes after ``before`` samples and takes ``each`` at every step."""
    return None if progress is None else lambda done, _: progress(before + each * done, total)


def _check(*, radius: float, n: int, level: float, null: str | None) -> None:
    require(radius >= 0, "radius", f"must not be negative, got {radius}")
    require(n >= 1, "n", f"must be at least 1 sequence, got {n}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    require(null is None or null in get_args(NullName), "null", f"must be init, keys or none, got {null!r}")


def _draws(null: NullName, asked: int | None, level: float) -> int:
    """How many; none without a null, whatever was asked for. ConfigError if they are too few for the level."""
    if null == "none":
        return 0
    least = least_draws(level)
    if asked is not None and asked < least:
        reason = f"must be at least {least} for a p-value of {1 - level:.3g}, got {asked}"
        raise ConfigError(f"draws {reason}", hint="draw more of them, or choose a lower level")
    return max(DRAWS, least) if asked is None else asked


def _rows(sums: ProximitySums, null: Null | None, level: float, seed: int) -> list[ProximityRow]:
    per_sample = sums.per_head | sums.per_sample
    rows = []
    for quantity, (unit, statistic, names) in quantities(len(sums.layout.shape) == 2).items():
        generator = stream(seed, quantity, "bootstrap")
        band = bootstrap(*(per_sample[name] for name in names), statistic=statistic, level=level, generator=generator)
        intervals = [band.interval(i, unit=unit) for i in range(sums.heads.total)]
        tested = null if quantity == "proximity_bias" else None
        p_values = [None] * sums.heads.total if tested is None else tested.p_values()
        for (layer, head), interval, p in zip(sums.heads.places(), intervals, p_values, strict=True):
            rows.append(_row(layer, head, quantity, interval, tested, p))
        if quantity == "proximity_bias":
            rows += [_largest(layer, intervals[group], tested, group) for layer, group in groups(sums.heads)]
    return rows


def _largest(layer: int | None, intervals: list[Interval], null: Null | None, group: slice) -> ProximityRow:
    largest = max(intervals, key=lambda interval: np.nan_to_num(interval.estimate, nan=-np.inf))
    p = None if null is None else null.p_value_of_largest(group)
    return _row(layer, None, "proximity_bias.max", largest, null, p)


def _row(
    layer: int | None, head: int | None, quantity: str, interval: Interval, null: Null | None, p: float | None
) -> ProximityRow:
    """Without a p-value where nothing could be tested."""
    if null is None or p is None or np.isnan(p) or np.isnan(interval.estimate):
        return ProximityRow(layer=layer, head=head, quantity=quantity, interval=interval)
    return ProximityRow(layer=layer, head=head, quantity=quantity, interval=interval, p_value=float(p), null=null.name)
