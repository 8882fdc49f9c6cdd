"""Proximity bias: how much higher a head scores keys near the query, and what the softmax makes of it."""

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.probes.heads import Heads
from attnprobe.probes.memory import plan_memory
from attnprobe.probes.proximity.sums import ProximitySums
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.layout import Layout
from attnprobe.statistics.bands import Profile
from attnprobe.statistics.intervals import Statistic, bootstrap, hierarchical_bootstrap
from attnprobe.statistics.key_permutation import KeyPermutationNull
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.streams import stream

SEQUENCE_RADIUS, GRID_RADIUS = 3.0, 1.5  # positions; pixels: the eight neighbours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proximity:
    """What ``measure`` returns; quantities are described there."""

    rows: list[Measurement]
    layout: Layout
    radius: float
    samples: np.ndarray  # (n,) those that were measured
    heads: Heads
    sd: np.ndarray  # (layer, head) standard deviation of the centred scores
    profile: Profile  # by offset along a sequence; by distance, rounded to whole pixels, on a grid
    map: Profile | None  # by (offset_y, offset_x) on a grid
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
    permutations: int = 999,
    include_self: bool = True,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proximity:
    """Proximity of every layer and head on ``n`` samples of a subject (all, if it has fewer).

    Scores are centred per query over its visible keys. A pair is near if its distance (|offset|, or Euclidean on a
    pixel grid) is at most ``radius``: 3 positions or 1.5 pixels by default. A position is near itself unless
    ``include_self`` is false, which takes these pairs out of near and far alike. Per layer and head, with bootstrap
    intervals over sequences:

    - ``proximity_bias`` (sd of scores): (mean centred score of near pairs - mean of the others) / standard deviation
      of the centred scores. p_value: two-sided, against the same scores with the key positions permuted.
    - ``near_mass`` (x uniform): pattern mass on near keys / what uniform attention would put there.
    - ``distance`` (positions or pixels): mean distance of the attended key, weighted by the pattern.
    - ``entropy`` (nats): mean entropy of the pattern, per query.

    Leading tokens (a class token) have no place among the positions: they are left out as queries and as keys, and the
    patterns are those among the other positions. So are padded positions, even if the model attends to them. Under
    causality the earliest queries, which see few keys, count like all others. Layers may differ in their heads. Memory
    beyond weights and data stays below ``memory_limit`` bytes. ``progress`` is told (samples done, samples).

    Raises ConfigError for impossible settings, NotApplicableError if there are fewer than two positions, no near or no
    far pair, or activations that are not finite (naming layer and head).
    """
    layout = subject.space.layout
    radius = (SEQUENCE_RADIUS if len(layout.shape) == 1 else GRID_RADIUS) if radius is None else radius
    _check(radius=radius, n=n, level=level, permutations=permutations)
    samples = subject.draw(n, seed)
    n = len(samples)
    plan = plan_memory(subject, samples, permutations=permutations, memory_limit=memory_limit)
    null = KeyPermutationNull(
        length=layout.length,
        permutations=permutations,
        matrix=plan.null_matrix,
        generator=stream(seed, "key permutations"),
    )
    sums = ProximitySums(subject, n=n, radius=radius, include_self=include_self, plan=plan, null=null)
    for span, part in batches(samples, plan.batch):
        sums.count(span, subject.real(part))
    with torch.inference_mode():
        for span, part in batches(samples, plan.batch, progress):
            subject.run(part, observe=functools.partial(sums.add, samples=span, valid=subject.real(part)))
    profile, grid = sums.profiles(level)
    return Proximity(
        rows=_rows(sums, level, seed),
        layout=layout,
        radius=radius,
        samples=samples,
        heads=sums.heads,
        sd=sums.sd(),
        profile=profile,
        map=grid,
        sums=sums.per_head | sums.per_sample,
    )


def pool(results: Sequence[Proximity], *, level: float = 0.95, seed: int = 0) -> list[Measurement]:
    """What several seeds of one setting say together, layer by layer; n is the number of seeds.

    Heads have no order that seeds share, so each quantity is taken as the mean over heads (``QUANTITY.mean``) and as
    that of the head with the largest value (``QUANTITY.max``). Intervals are over seeds, for the sequences measured.
    """
    heads, rows = results[0].heads, []
    layers = range(len(heads.counts))
    for quantity, (unit, statistic, names) in _quantities(len(results[0].layout.shape) == 2).items():
        arguments = [[result.sums[name] for result in results] for name in names]
        for summary, over_heads in (("mean", np.mean), ("max", np.max)):

            def by_layer(*means: np.ndarray, statistic=statistic, over_heads=over_heads) -> np.ndarray:
                values = statistic(*means)
                return np.stack([over_heads(values[..., heads.within(layer)], axis=-1) for layer in layers], -1)

            draws = stream(seed, quantity, "seeds")
            band = hierarchical_bootstrap(*arguments, statistic=by_layer, level=level, generator=draws)
            for layer in layers:
                interval = band.interval(layer, unit=unit)
                rows.append(Measurement(layer=layer, head=None, quantity=f"{quantity}.{summary}", interval=interval))
    return rows


def _check(*, radius: float, n: int, level: float, permutations: int) -> None:
    require(radius >= 0, "radius", f"must not be negative, got {radius}")
    require(n >= 1, "n", f"must be at least 1 sequence, got {n}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    require(permutations >= 1, "permutations", f"must be at least 1, got {permutations}")


def _rows(sums: ProximitySums, level: float, seed: int) -> list[Measurement]:
    per_sample = sums.per_head | sums.per_sample
    p_values = permutation_p_value(*sums.null.finish())
    rows = []
    for quantity, (unit, statistic, names) in _quantities(len(sums.layout.shape) == 2).items():
        draws = stream(seed, quantity, "bootstrap")
        band = bootstrap(*(per_sample[name] for name in names), statistic=statistic, level=level, generator=draws)
        for i, (layer, head) in enumerate(sums.heads.places()):
            interval = band.interval(i, unit=unit)
            p = float(p_values[i]) if quantity == "proximity_bias" else None
            rows.append(
                Measurement(
                    layer=layer,
                    head=head,
                    quantity=quantity,
                    interval=interval,
                    p_value=None if np.isnan(interval.estimate) else p,
                )
            )
    return rows


def _quantities(grid: bool) -> dict[str, tuple[str, Statistic, tuple[str, ...]]]:
    """Quantity -> unit, statistic of means over samples, and the sums it takes."""
    bias = ("near_score", "near_pairs", "far_score", "far_pairs", "squares", "pairs")
    return {
        "proximity_bias": ("sd of scores", _standardised_gap, bias),
        "near_mass": ("x uniform", np.divide, ("near_mass", "uniform")),
        "distance": ("pixels" if grid else "positions", np.divide, ("distance", "queries")),
        "entropy": ("nats", np.divide, ("entropy", "queries")),
    }


def _standardised_gap(
    near: np.ndarray,
    near_pairs: np.ndarray,
    far: np.ndarray,
    far_pairs: np.ndarray,
    squares: np.ndarray,
    pairs: np.ndarray,
) -> np.ndarray:
    """(mean near - mean far) / sd; undefined where all scores are equal or a resample has no near or no far pair."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > 0, (near / near_pairs - far / far_pairs) / np.sqrt(squares / pairs), np.nan)
