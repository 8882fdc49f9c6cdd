"""One measurement is one row: about a head, a layer or a model, with its interval and perhaps a p-value."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from attnprobe.statistics.intervals import Interval
from attnprobe.statistics.permutations import false_discovery_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number about one head; head (or layer) is None for a number about a whole layer (or model)."""

    layer: int | None
    head: int | None
    quantity: str
    interval: Interval
    p_value: float | None = None


def rows_to_records(rows: Iterable[Measurement], checkpoint: str, *more: str) -> list[dict[str, Any]]:
    """Tidy rows for CSV and strict JSON: one flat dict per measurement, None where a number is not finite.

    more: names of further fields of the rows, such as direction.
    """
    records = []
    for row in rows:
        numbers = dataclasses.asdict(row.interval)
        record = {"checkpoint": checkpoint, "layer": row.layer, "head": row.head, "quantity": row.quantity}
        record |= {key: numbers[key] for key in ("estimate", "low", "high", "level", "n", "unit")}
        record |= {"p_value": row.p_value} | {name: getattr(row, name) for name in more}
        records.append({key: None if _not_finite(value) else value for key, value in record.items()})
    return records


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def with_q_values(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add q_value and family to tidy records: p-values adjusted over all rows of a family (Benjamini-Hochberg).

    A family are the rows of one checkpoint, or of one step of a run, that ask for the same quantity (of the same loss
    and kind), whatever their layer, head, direction or dose; it is called by what its rows share. Records that name a
    family themselves keep that name, and are adjusted with those of the same name only.
    """
    families: dict[tuple[Any, ...], list[int]] = {}
    names: dict[int, str] = {}
    for number, record in enumerate(records):
        if record.get("p_value") is not None:
            shared = tuple(record.get(key) for key in ("quantity", "loss", "kind"))
            names[number] = record.get("family") or ", ".join(str(part) for part in shared if part is not None)
            place = tuple(record.get(key) for key in ("checkpoint", "run", "phase", "step"))
            families.setdefault((*place, *shared, names[number]), []).append(number)
    q_values: dict[int, float] = {}
    for numbers in families.values():
        adjusted = false_discovery_rate([records[number]["p_value"] for number in numbers])
        q_values |= dict(zip(numbers, map(float, adjusted), strict=True))
    return [
        record | {"q_value": q_values.get(number), "family": names.get(number, record.get("family"))}
        for number, record in enumerate(records)
    ]
