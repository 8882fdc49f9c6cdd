"""Proximity bias: how much higher a head scores keys near the query, and what the softmax makes of it."""

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import torch

from attnprobe.config import require
from attnprobe.models import Transformer
from attnprobe.probes.memory import plan_memory
from attnprobe.probes.proximity_sums import ProximitySums
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import Progress, draw_samples, layout_of, load_sequences
from attnprobe.scores.layout import Layout
from attnprobe.statistics.bands import Profile
from attnprobe.statistics.intervals import Statistic, bootstrap, hierarchical_bootstrap
from attnprobe.statistics.key_permutation import KeyPermutationNull
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.tasks import Split

SEQUENCE_RADIUS, GRID_RADIUS = 3.0, 1.5  # positions; pixels: the eight neighbours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proximity:
    """What ``measure`` returns; quantities are described there."""

    rows: list[Measurement]
    layout: Layout
    radius: float
    n: int  # samples
    sd: np.ndarray  # (layer, head) standard deviation of the centred scores
    profile: Profile  # by offset along a sequence; by distance, rounded to whole pixels, on a grid
    map: Profile | None  # by (offset_y, offset_x) on a grid
    samples: dict[str, np.ndarray]  # sums per sequence (n, layer or 1, head or 1), which the quantities are made of

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
    model: Transformer,
    split: Split,
    *,
    radius: float | None = None,
    n: int = 256,
    level: float = 0.95,
    permutations: int = 999,
    include_self: bool = True,
    memory_limit: int = 2 * 2**30,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> Proximity:
    """Proximity of every layer and head on ``n`` sequences drawn from the split (all, if it has fewer).

    Scores are centred per query over its visible keys. A pair is near if its distance (|offset|, or Euclidean on a
    pixel grid) is at most ``radius``: 3 positions or 1.5 pixels by default. A position is near itself unless
    ``include_self`` is false, which takes these pairs out of near and far alike. Per layer and head, with bootstrap
    intervals over sequences:

    - ``proximity_bias`` (sd of scores): (mean centred score of near pairs - mean of the others) / standard deviation
      of the centred scores. p_value: two-sided, against the same scores with the key positions permuted.
    - ``near_mass`` (x uniform): pattern mass on near keys / what uniform attention would put there.
    - ``distance`` (positions or pixels): mean distance of the attended key, weighted by the pattern.
    - ``entropy`` (nats): mean entropy of the pattern, per query.

    The class token of readout "token" has no place among the positions: it is left out as query and as key, and the
    patterns are those among the other positions. So are padded positions, even if the model attends to them. Under
    causality the earliest queries, which see few keys, count like all others. Model and split must be on one device.
    Memory beyond weights and data stays below ``memory_limit`` bytes. ``progress`` is told (samples done, samples).

    Raises ConfigError for impossible settings, NotApplicableError if there are fewer than two positions, no near or no
    far pair, or activations that are not finite (naming layer and head).
    """
    layout = layout_of(model, split)
    radius = (SEQUENCE_RADIUS if model.spec.grid is None else GRID_RADIUS) if radius is None else radius
    _check(radius=radius, n=n, level=level, permutations=permutations)
    chosen = draw_samples(split, n, generator)
    n = len(chosen)
    plan = plan_memory(
        model, layout, samples=n, permutations=permutations, memory_limit=memory_limit, padded=split.lengths is not None
    )
    sums = ProximitySums(model, layout, radius, include_self, n)
    batches = [slice(start, min(start + plan.batch, n)) for start in range(0, n, plan.batch)]
    for span in batches:
        sums.count(span, load_sequences(model, split, chosen[span])[1])
    null = KeyPermutationNull(
        layers=model.config.layers,
        heads=model.config.heads,
        length=layout.length,
        permutations=permutations,
        matrix=plan.null_matrix,
        generator=generator,
    )
    contrast = sums.contrast()
    with torch.inference_mode():
        for span in batches:
            inputs, valid = load_sequences(model, split, chosen[span])
            add = functools.partial(sums.add, samples=span, valid=valid, plan=plan, null=null, contrast=contrast)
            model(inputs, valid=valid, observe=add)
            if progress is not None:
                progress(span.stop, n)
    profile, grid = sums.profiles(level)
    rows = _rows(sums, *null.finish(), level, generator)
    return Proximity(
        rows=rows,
        layout=layout,
        radius=radius,
        n=n,
        sd=sums.sd(),
        profile=profile,
        map=grid,
        samples=sums.per_head | sums.per_sample,
    )


def pool(results: Sequence[Proximity], *, level: float = 0.95, generator: np.random.Generator) -> list[Measurement]:
    """What several seeds of one setting say together, layer by layer; n is the number of seeds.

    Heads have no order that seeds share, so each quantity is taken as the mean over heads (``QUANTITY.mean``) and as
    that of the head with the largest value (``QUANTITY.max``). Intervals are over seeds, for the sequences measured.
    """
    rows = []
    for quantity, (unit, statistic, names) in _quantities(len(results[0].layout.shape) == 2).items():
        arguments = [[result.samples[name] for result in results] for name in names]
        for summary, over_heads in (("mean", np.mean), ("max", np.max)):

            def by_layer(*means: np.ndarray, statistic=statistic, over_heads=over_heads) -> np.ndarray:
                return over_heads(statistic(*means), axis=-1)

            band = hierarchical_bootstrap(*arguments, statistic=by_layer, level=level, generator=generator)
            for layer in range(len(band.estimate)):
                interval = band.interval(layer, unit=unit)
                rows.append(Measurement(layer=layer, head=None, quantity=f"{quantity}.{summary}", interval=interval))
    return rows


def _check(*, radius: float, n: int, level: float, permutations: int) -> None:
    require(radius >= 0, "radius", f"must not be negative, got {radius}")
    require(n >= 1, "n", f"must be at least 1 sequence, got {n}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    require(permutations >= 1, "permutations", f"must be at least 1, got {permutations}")


def _rows(
    sums: ProximitySums, observed: np.ndarray, null: np.ndarray, level: float, generator: np.random.Generator
) -> list[Measurement]:
    per_sample = sums.per_head | sums.per_sample
    p_values = permutation_p_value(observed, null)
    rows = []
    for quantity, (unit, statistic, names) in _quantities(len(sums.layout.shape) == 2).items():
        band = bootstrap(*(per_sample[name] for name in names), statistic=statistic, level=level, generator=generator)
        for layer, head in np.ndindex(*observed.shape):
            interval = band.interval(layer, head, unit=unit)
            p = float(p_values[layer, head]) if quantity == "proximity_bias" else None
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
