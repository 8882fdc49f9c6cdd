"""Proximity and alignment by step of training: few, cheap measurements, on a log-spaced grid while a run goes on."""

import contextlib
import dataclasses
from typing import Any

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes import alignment, proximity
from attnprobe.probes.rows import rows_to_records
from attnprobe.scores.directions import Direction
from attnprobe.scores.distance_profiles import contrast_profile
from attnprobe.scores.named import MAIN_RADIUS, kernel_name

QUANTITIES = ("label.t", "label.t.null", "label.dependent.mean", "label.dependent.t", "reconstruction.t")


def log_spaced(factor: float, step: int) -> bool:
    """Whether ``step`` is on the grid 0, 1, ... where each step is the last one times ``factor``, rounded up."""
    grid = 0
    while grid < step:
        grid = max(grid + 1, int(np.ceil(grid * factor)))
    return grid == step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What is measured at every step of the grid: ``sequences`` samples, always the same ones."""

    sequences: int = 32
    radius: float = MAIN_RADIUS  # of the contrast direction that gradients are projected on
    shuffles: int = 99
    seed: int = 0

    def measure(self, subject: Subject) -> list[dict[str, Any]]:
        """Tidy records: proximity_bias and score_sd of every head, and t of both losses' gradients along one direction.

        label.dependent.mean carries the p-value against shuffled labels.
        """
        records: list[dict[str, Any]] = []
        for probe in (self.proximity, self.gradients):
            with contextlib.suppress(NotApplicableError):  # a run goes on without it
                records += probe(subject)
        return records

    def proximity(self, subject: Subject) -> list[dict[str, Any]]:
        found = proximity.measure(subject, n=self.sequences, null="none", seed=self.seed)
        rows = [row for row in found.rows if row.quantity in ("proximity_bias", "score_sd")]
        return [_of_a_step(record | {"direction": None}) for record in rows_to_records(rows, "")]

    @torch.enable_grad()
    def gradients(self, subject: Subject) -> list[dict[str, Any]]:
        profile = contrast_profile(subject.space.layout, self.radius)
        direction = Direction(name=kernel_name("contrast", self.radius), profile=profile)
        found = alignment.measure(
            subject,
            n=self.sequences,
            directions=[direction],
            shuffles=self.shuffles,
            null="none",
            groups=1,  # no cosines
            seed=self.seed,
        )
        return [_of_a_step(record) for record in found.records("") if record["quantity"] in QUANTITIES]


def _of_a_step(record: dict[str, Any]) -> dict[str, Any]:
    """Without checkpoint: there is none, the model is measured as it trains."""
    return {key: value for key, value in record.items() if key != "checkpoint"}
