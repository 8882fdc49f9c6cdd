"""Where long convolutions look: the locality of their kernels, measured as that of attention patterns."""

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np

from attnprobe.config import require
from attnprobe.errors import NotApplicableError
from attnprobe.probes.proximity.probe import GRID_RADIUS, SEQUENCE_RADIUS
from attnprobe.probes.rows import Measurement
from attnprobe.scores.kernel_sums import kernel_sums
from attnprobe.scores.layout import Layout
from attnprobe.statistics.intervals import bootstrap
from attnprobe.streams import stream

NONE = "this model has no long convolutions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernels:
    """What ``measure`` returns; quantities are described there."""

    rows: list[Measurement]
    layout: Layout
    largest: np.ndarray  # (layer, offset) max over channels of |K(offset)|
    channels: dict[str, np.ndarray]  # quantity -> (layer, channel)

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        arrays = {"offset": np.arange(1 - self.layout.length, self.layout.length), "largest": self.largest}
        names = {"offset": ["offset"], "largest": ["layer", "offset"]}
        names |= {quantity: ["layer", "channel"] for quantity in self.channels}
        return arrays | self.channels | {"axes": np.array(json.dumps(names))}


def measure(
    kernels: Sequence[np.ndarray], layout: Layout, *, radius: float | None = None, level: float = 0.95, seed: int = 0
) -> Kernels:
    """Locality of every layer's kernels (channel, 2 length - 1), by offset key - query from 1 - length on.

    What a query takes from every key is |K(offset)|, scaled to sum to 1 over the keys that are there, which makes it
    comparable with the pattern of an attention head. Near is what ``proximity`` calls near: 3 positions, or 1.5 pixels
    on a grid, by default. Per layer the mean over channels, with a bootstrap interval over channels:

    - ``near_mass`` (x uniform): weight on near keys / what equal weights would put there.
    - ``distance`` (positions or pixels): mean distance of the weight.
    - ``entropy`` (nats): mean entropy of the weights of a query.

    Channels of one model are not independent: the interval says how channels differ, not how other seeds would.
    Raises ConfigError for impossible settings, NotApplicableError if there is no kernel, or one is not finite.
    """
    grid = len(layout.shape) == 2
    radius = (GRID_RADIUS if grid else SEQUENCE_RADIUS) if radius is None else radius
    require(radius >= 0, "radius", f"must not be negative, got {radius}")
    require(0 < level < 1, "level", f"must lie between 0 and 1, got {level}")
    reach = math.hypot(*(side - 1 for side in layout.shape))
    if radius >= reach:
        raise NotApplicableError(f"no pair of positions lies beyond radius {radius:g}", hint="change radius")
    if not kernels:
        raise NotApplicableError(NONE, hint="choose one with state-space mixers")
    units = {"near_mass": "x uniform", "distance": "pixels" if grid else "positions", "entropy": "nats"}
    rows, found = [], {name: [] for name in units}
    for layer, kernel in enumerate(kernels):
        if not np.isfinite(kernel).all():
            hint = "the training may have diverged"
            raise NotApplicableError(f"layer {layer}: a kernel holds NaN or infinite values", hint)
        sums = kernel_sums(np.abs(kernel), layout, radius)
        for quantity, unit in units.items():
            values = getattr(sums, quantity)
            found[quantity].append(values)
            draws = stream(seed, quantity, str(layer), "channels")
            interval = bootstrap(values, level=level, generator=draws).interval(unit=unit)
            rows.append(Measurement(layer=layer, head=None, quantity=quantity, interval=interval))
    return Kernels(
        rows=rows,
        layout=layout,
        largest=np.stack([np.abs(kernel).max(0) for kernel in kernels]),
        channels={name: np.stack(values) for name, values in found.items()},
    )
