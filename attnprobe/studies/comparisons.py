"""What the choices of an axis gain over one of them, seed by seed, with all comparisons of a table in view.

In 1000 simulated tables without differences (4 arms against one, 4 tasks, 16 comparisons) at least one comparison was
clear in 3.9 % [2.8, 5.3] at 3 seeds and 5.7 % [4.3, 7.3] at 5 with normal noise, in 2.8 % [1.9, 4.0] and 2.2 %
[1.4, 3.3] where the runs are as skewed as an exponential: equal skewness cancels in differences. It does not cancel
where one arm is skewed and the other hardly varies: 19 % and 36 % of tables with exponential differences. Where one
seed in seven fails, five seeds do not tell, by this or any other interval (see ``intervals.band_over_seeds``).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from attnprobe.statistics.intervals import Interval, student_interval
from attnprobe.statistics.multiplicity import holm
from attnprobe.statistics.student import p_value
from attnprobe.studies.cells import Cell, Key, Place

LEVEL = 0.95
FEWEST = 3  # pairs below which nothing is called clear: Student's t then rests on a single degree of freedom, or none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A cell minus the cell it is compared with, over the seeds that both have: what seeds share cancels."""

    place: Place  # of the cell
    against: Place
    differences: dict[int, float]  # seed -> difference
    interval: Interval  # 95 %, of this comparison alone
    # 95 % for all comparisons of the table at once, that is 1 - .05 / comparisons for each (Bonferroni)
    simultaneous: Interval
    p_value: float  # of no difference, alone; NaN where nothing can be said
    adjusted: float  # the same for the whole table (Holm 1979)

    @property
    def clear(self) -> bool:
        """Whether a table may set it in bold: its simultaneous interval excludes zero. Then ``adjusted`` <= .05."""
        return len(self.differences) >= FEWEST and self.simultaneous.low * self.simultaneous.high > 0


def comparisons(cells: Mapping[Key, Cell], axis: str, against: str, *, level: float = LEVEL) -> dict[Key, Comparison]:
    """By the key of the cell that is compared; those whose runs are missing are not in it, but count.

    All pairs of cells that the grid asks for count as comparisons of the table, whether their runs are there or not:
    otherwise what is bold in a table that is half done would be too easily so.
    """
    pairs = {}
    for key, cell in cells.items():
        other = tuple((cell.place | {axis: against}).values())
        if cell.place[axis] != against and other in cells:
            pairs[key] = (cell, cells[other])
    shared = {key: _differences(*pair) for key, pair in pairs.items()}
    found = {key: differences for key, differences in shared.items() if differences}
    alone = [_p_value(list(differences.values())) for differences in found.values()]
    known = np.nan_to_num(np.array(alone + [1.0] * (len(pairs) - len(found))), nan=1.0)
    adjusted = holm(known)
    number = {"unit": next(iter(cells.values())).number} if cells else {}
    return {
        key: Comparison(
            place=pairs[key][0].place,
            against=pairs[key][1].place,
            differences=differences,
            interval=_interval(differences, level, **number),
            simultaneous=_interval(differences, 1 - (1 - level) / len(pairs), **number),
            p_value=alone[position],
            adjusted=math.nan if math.isnan(alone[position]) else float(adjusted[position]),
        )
        for position, (key, differences) in enumerate(found.items())
    }


def _differences(cell: Cell, other: Cell) -> dict[int, float]:
    return {seed: value - other.values[seed] for seed, value in cell.values.items() if seed in other.values}


def _interval(differences: Mapping[int, float], level: float, *, unit: str) -> Interval:
    """Student's; without bounds where all differences are equal, which says nothing of how they spread."""
    found = student_interval(list(differences.values()), level=level, unit=unit)
    if found.high > found.low:
        return found
    return dataclasses.replace(found, low=math.nan, high=math.nan)


def _p_value(differences: Sequence[float]) -> float:
    n = len(differences)
    spread = float(np.std(differences, ddof=1)) if n > 1 else 0.0
    return float(p_value(np.mean(differences), spread / math.sqrt(n), n - 1)) if spread > 0 else math.nan
