"""From outcomes to rates with exact intervals, and which of them are off by more than chance."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from attnprobe.calibration.outcomes import Kind, Outcome
from attnprobe.statistics.multiplicity import holm

ALPHA = 0.05  # p-values count as false positives up to here
FAMILY_LEVEL = 0.05  # chance that a family of right rows has one that is called miscalibrated
EVERY_CELL = "all cells"

Verdict = Literal["ok", "liberal", "conservative", "refused", "power"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """The nominal rate of an event, and the rates that are near enough."""

    event: str
    nominal: float
    low: float
    high: float
    harmful: Literal["high", "low"]  # the side on which the tool says more than it knows


PROMISES: dict[Kind, Promise] = {
    "p-value": Promise(event=f"p <= {ALPHA:g}", nominal=0.05, low=0.03, high=0.07, harmful="high"),
    "interval": Promise(event="covers", nominal=0.95, low=0.93, high=0.97, harmful="low"),
    "verdict": Promise(event="wrong", nominal=0.05, low=0.0, high=0.07, harmful="high"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One promise of one probe in one cell (or in all of them); of a planted effect, how often it was found."""

    cell: str
    probe: str
    quantity: str
    kind: Kind
    nominal: float | None  # None: of a planted effect nothing is promised
    replicas: int  # that gave an answer
    events: int
    rate: float  # NaN without replicas
    low: float  # exact (Clopper and Pearson 1934), 95 %
    high: float
    refused: int  # replicas without an answer
    reason: str  # of the refusals
    outside: Verdict  # by this row's own interval: 1 in 20 is outside by chance, or fewer
    verdict: Verdict  # adjusted for the number of rows (Holm 1979)

    @property
    def miscalibrated(self) -> bool:
        return self.verdict in ("liberal", "conservative")


Key = tuple[str, str, str, Kind]  # cell, probe, quantity, kind


def judge(outcomes: Iterable[tuple[str, str, Outcome]]) -> list[Row]:
    """Rows of (cell, probe, outcome) triples: each cell, then all cells together, then planted effects."""
    groups: dict[Key, list[Outcome]] = defaultdict(list)
    for cell, probe, outcome in outcomes:
        for place in (cell,) if outcome.kind == "power" else (cell, EVERY_CELL):
            groups[place, probe, outcome.quantity, outcome.kind].append(outcome)
    ordered = sorted(groups, key=lambda key: (key[3] == "power", key[0] == EVERY_CELL))
    rows = [_row(key, groups[key]) for key in ordered]
    rejected = holm(np.array([_tail(row) for row in rows])) <= FAMILY_LEVEL
    pairs = zip(rows, rejected, strict=True)
    return [dataclasses.replace(row, verdict=row.outside) if reject else row for row, reject in pairs]


def rejects(p: float) -> bool:
    """Whether a p-value, or a q-value, counts; it may be ALPHA up to rounding."""
    return p <= ALPHA + 1e-12


def _row(key: Key, outcomes: list[Outcome]) -> Row:
    cell, probe, quantity, kind = key
    promise = PROMISES.get(kind)
    values = [o.value for o in outcomes if o.value is not None]
    reasons = [o.refused for o in outcomes if o.value is None]
    tests = kind in ("p-value", "power")
    events, n = sum(map(rejects, values)) if tests else int(sum(values)), len(values)
    low, high = exact_interval(events, n)
    plain: Verdict = "refused" if not n else "ok" if promise else "power"
    return Row(
        cell=cell, probe=probe, quantity=quantity, kind=kind, nominal=promise.nominal if promise else None,
        replicas=n, events=events, rate=events / n if n else np.nan, low=low, high=high, refused=len(reasons),
        reason=max(set(reasons), key=reasons.count) if reasons else "",
        outside=_outside(low, high, promise) if promise and n else plain, verdict=plain,
    )  # fmt: skip


def _outside(low: float, high: float, promise: Promise) -> Verdict:
    if low <= promise.high and high >= promise.low:
        return "ok"
    return "liberal" if (low > promise.high) == (promise.harmful == "high") else "conservative"


def exact_interval(events: int, n: int) -> tuple[float, float]:
    """Of a rate at 95 % (Clopper and Pearson 1934); NaN if nothing was seen."""
    if n == 0:
        return np.nan, np.nan
    exact = stats.binomtest(events, n).proportion_ci(0.95, method="exact")
    return float(exact.low), float(exact.high)


def _tail(row: Row) -> float:
    """Two-sided p-value that the true rate lies within the promise; 1 where nothing is promised or was measured."""
    promise = PROMISES.get(row.kind)
    if promise is None or not row.replicas:
        return 1.0
    above = float(stats.binom.sf(row.events - 1, row.replicas, promise.high))
    below = float(stats.binom.cdf(row.events, row.replicas, promise.low)) if promise.low > 0 else 1.0
    return min(1.0, 2 * min(above, below))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """One promise over all cells."""

    together: Row  # all cells
    cells: list[Row]

    @property
    def answered(self) -> list[Row]:
        return [row for row in self.cells if row.replicas]

    @property
    def outside(self) -> list[Row]:
        """By their own intervals."""
        return [row for row in self.answered if row.outside != "ok"]

    @property
    def miscalibrated(self) -> list[Row]:
        return [row for row in (*self.cells, self.together) if row.miscalibrated]

    @property
    def worst(self) -> Row | None:
        """The cell whose rate is farthest from the nominal one."""
        nominal = self.together.nominal or 0.0
        return max(self.answered, key=lambda row: abs(row.rate - nominal), default=None)

    @property
    def verdict(self) -> str:
        verdicts = [row.verdict for row in self.miscalibrated]
        if "liberal" in verdicts:
            return "liberal"
        return "conservative" if verdicts else "ok" if self.answered else "refused"


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Of all that is promised, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind != "power":
            groups[row.probe, row.quantity, row.kind].append(row)
    return [
        Summary(
            together=next(row for row in group if row.cell == EVERY_CELL),
            cells=[row for row in group if row.cell != EVERY_CELL],
        )
        for group in groups.values()
    ]
