"""The heads of all layers along one axis, however many each layer has."""

import dataclasses

import numpy as np

from attnprobe.capture.subject import Subject


@dataclasses.dataclass(frozen=True)
class Heads:
    counts: tuple[int, ...]  # of every layer

    @staticmethod
    def of(subject: Subject) -> "Heads":
        return Heads(tuple(layer.heads for layer in subject.layers))

    @property
    def total(self) -> int:
        return sum(self.counts)

    def within(self, layer: int) -> slice:
        first = sum(self.counts[:layer])
        return slice(first, first + self.counts[layer])

    def places(self) -> list[tuple[int, int]]:
        """(layer, head) in the order of the axis."""
        return [(layer, head) for layer, count in enumerate(self.counts) for head in range(count)]

    def table(self, values: np.ndarray) -> np.ndarray:
        """(total, ...) -> (layer, head, ...), NaN where a layer has fewer heads than the largest."""
        found = np.full((len(self.counts), max(self.counts), *values.shape[1:]), np.nan)
        for value, place in zip(values, self.places(), strict=True):
            found[place] = value
        return found
