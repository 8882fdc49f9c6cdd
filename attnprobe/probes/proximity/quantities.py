"""What proximity says of every head: quantities as functions of mean sums over samples."""

import dataclasses

import numpy as np

from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Statistic

BIAS = ("near_score", "near_pairs", "far_score", "far_pairs", "squares", "pairs")  # the sums of ``standardised_gap``


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProximityRow(Measurement):
    """``null``: what the p-value was drawn from, "init" or "keys"; None where there is none."""

    null: str | None = None


def quantities(grid: bool) -> dict[str, tuple[str, Statistic, tuple[str, ...]]]:
    """Quantity -> unit, statistic of means over samples, and the sums it takes."""
    return {
        "proximity_bias": ("sd of scores", standardised_gap, BIAS),
        "score_sd": ("score", _root_of_ratio, ("squares", "pairs")),
        "near_mass": ("x uniform", np.divide, ("near_mass", "uniform")),
        "distance": ("pixels" if grid else "positions", np.divide, ("distance", "queries")),
        "entropy": ("nats", np.divide, ("entropy", "queries")),
    }


def standardised_gap(
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


def _root_of_ratio(squares: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(squares, 0.0) / pairs)
