"""What several training seeds of one setting say together."""

from collections.abc import Sequence

import numpy as np

from attnprobe.probes.proximity.nulls import Null, groups
from attnprobe.probes.proximity.probe import Proximity
from attnprobe.probes.proximity.quantities import ProximityRow, quantities
from attnprobe.statistics.intervals import band_over_seeds
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.streams import stream


def pool(results: Sequence[Proximity], *, level: float = 0.95, seed: int = 0) -> list[ProximityRow]:
    """Rows of every layer, and of the model if it has several; n is the number of seeds.

    Heads have no order that seeds share, so each quantity is taken as the mean over heads (``QUANTITY.mean``) and as
    that of the head with the largest value (``QUANTITY.max``). Intervals are over seeds, for the sequences measured.

    The largest of several heads is positive by chance alone. If all results have the same null, ``proximity_bias.max``
    therefore has its p-value against means over seeds of the largest head of each draw (independent seeds keep it
    exact), and ``proximity_bias.max_beyond_null`` is what it has beyond the mean of its own null, seed by seed, on the
    samples that the null was drawn on: that is zero on average where the null holds.
    """
    heads, rows = results[0].heads, []
    for quantity, (unit, statistic, names) in quantities(len(results[0].layout.shape) == 2).items():
        arguments = [[result.sums[name] for result in results] for name in names]
        for summary, over_heads in (("mean", np.mean), ("max", np.fmax.reduce)):  # as the null takes it

            def by_group(*means: np.ndarray, statistic=statistic, over_heads=over_heads) -> np.ndarray:
                values = statistic(*means)
                return np.stack([over_heads(values[..., group], axis=-1) for _, group in groups(heads)], -1)

            draws = stream(seed, quantity, "seeds")
            band = band_over_seeds(*arguments, statistic=by_group, level=level, generator=draws)
            for i, (layer, group) in enumerate(groups(heads)):
                null, p = None, None
                if f"{quantity}.{summary}" == "proximity_bias.max":
                    null, p = _p_value_of_largest([result.null for result in results], group)
                rows.append(
                    ProximityRow(
                        layer=layer, head=None, quantity=f"{quantity}.{summary}", interval=band.interval(i, unit=unit),
                        p_value=p, null=null,
                    )
                )  # fmt: skip
    return rows + _beyond_null(results, level, seed)


def _common(nulls: Sequence[Null | None]) -> list[Null]:
    """All of them, if there are as many draws of the same null for all, else none."""
    known = [null for null in nulls if null is not None]
    alike = len({(null.name, len(null.drawn)) for null in known}) == 1
    return known if alike and len(known) == len(nulls) else []


def _p_value_of_largest(nulls: Sequence[Null | None], group: slice) -> tuple[str | None, float | None]:
    known = _common(nulls)
    if not known:
        return None, None
    largest = [null.largest(group) for null in known]
    observed, drawn = (np.mean([pair[i] for pair in largest], axis=0) for i in (0, 1))
    p = float(permutation_p_value(observed, drawn, alternative="greater"))
    return (None, None) if np.isnan(p) else (known[0].name, p)


def _beyond_null(results: Sequence[Proximity], level: float, seed: int) -> list[ProximityRow]:
    """Rows that name the null, but have no p-value: that is beside ``proximity_bias.max``."""
    known, rows = _common([result.null for result in results]), []
    for layer, group in groups(results[0].heads) if known else ():
        largest = [null.largest(group) for null in known]
        beyond = [np.array([observed - drawn.mean()]) for observed, drawn in largest]
        band = band_over_seeds(beyond, level=level, generator=stream(seed, "beyond the null", "seeds"))
        quantity, interval = "proximity_bias.max_beyond_null", band.interval(unit="sd of scores")
        rows.append(ProximityRow(layer=layer, head=None, quantity=quantity, interval=interval, null=known[0].name))
    return rows
