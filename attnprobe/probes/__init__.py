"""What is measured on a trained model, with error bars: (model, data) -> numbers.

``PROBES`` names what measures one checkpoint on one split. To add a probe, write ``measure`` and its result type in a
module of its own and add one line here.
"""

from collections.abc import Callable
from typing import Any

from attnprobe.probes import decomposition, proximity
from attnprobe.probes.statistics import Band as Band
from attnprobe.probes.statistics import Interval as Interval
from attnprobe.probes.statistics import Measurement as Measurement
from attnprobe.probes.statistics import rows_to_records as rows_to_records

# Called as measure(model, split, n=..., level=..., memory_limit=..., generator=...); the result has ``rows``.
PROBES: dict[str, Callable[..., Any]] = {
    "proximity": proximity.measure,
    "decomposition": decomposition.measure,
}
