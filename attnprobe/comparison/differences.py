"""What differs between two sides: settings, versions, data. Light: plain tables in, plain rows out."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
# of a manifest: where the numbers come from, and not what was asked for
SURROUNDINGS = (
    "attnprobe", "commit", "python", "torch", "numpy", "platform", "device", "device_name", "threads", "precision",
    "deterministic", "attention", "mode",
)  # fmt: skip


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by dotted key; lists are values."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        found |= flat(value, f"{dotted}.") if isinstance(value, Mapping) and value else {dotted: value}
    return found


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys that one of them lacks, or that have another value there, in the order in which they stand."""
    keys = dict.fromkeys([*one, *other])
    return [key for key in keys if key not in one or key not in other or one[key] != other[key]]


def differing(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of ``key``, ``a`` and ``b``, lists of the values found on either side, where these are not the same.

    one, other: flat tables, one per member of a side. A key that a table lacks counts as None there.
    """
    keys = dict.fromkeys(key for table in (*one, *other) for key in table)
    rows = []
    for key in keys:
        a, b = (distinct([table.get(key) for table in tables]) for tables in (one, other))
        if sorted(map(repr, a)) != sorted(map(repr, b)):
            rows.append({"key": key, "a": a, "b": b})
    return rows


def known_to_both(rows: Sequence[Row]) -> list[Row]:
    """Without those of which one side says nothing: what is not known is no difference."""
    return [row for row in rows if row["a"] != [None] and row["b"] != [None]]


def distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())


def surroundings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and machine of one run, flat."""
    return flat({key: manifest[key] for key in SURROUNDINGS if key in manifest})
