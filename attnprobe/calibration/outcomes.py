"""What one replica says about one promise of the tool: a p-value, or whether an interval holds the truth."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Interval

Kind = Literal["p-value", "interval", "verdict", "power"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    quantity: str  # as the probe calls it
    kind: Kind
    value: float | None  # p-value; 1 if the interval holds the truth; 1 if the verdict is wrong; None: no answer
    refused: str = ""  # why the probe gave no answer


def p_value(quantity: str, p: float | None) -> Outcome:
    """Of a test whose null is true."""
    if p is None or p != p:
        return Outcome(quantity=quantity, kind="p-value", value=None, refused="it is not defined here")
    return Outcome(quantity=quantity, kind="p-value", value=float(p))


def detects(quantity: str, p: float | None) -> Outcome:
    """Of a test whose null is false."""
    return dataclasses.replace(p_value(quantity, p), kind="power")


def covers(quantity: str, interval: Interval, truth: float) -> Outcome:
    if interval.low != interval.low or interval.high != interval.high:
        return Outcome(quantity=quantity, kind="interval", value=None, refused="it has no bounds here")
    return Outcome(quantity=quantity, kind="interval", value=float(interval.low <= truth <= interval.high))


def hardly_misses(quantity: str, interval: Interval, truth: float) -> Outcome:
    """Of counts of rare events, which no interval covers exactly: it may miss them as often as 95 % allow, or less."""
    found = covers(quantity, interval, truth)
    value = None if found.value is None else 1 - found.value
    return dataclasses.replace(found, quantity=f"{quantity} outside its interval", kind="verdict", value=value)


def row_of(rows: Iterable[Measurement], quantity: str, head: int | None) -> Measurement:
    """The one row of a quantity about a head; None: about the only layer."""
    found = [row for row in rows if row.quantity == quantity and row.head == head]
    assert len(found) == 1, f"{len(found)} rows of {quantity}"
    return found[0]
