"""The truths of a population by dense formulas: where sample and population are the same, probes estimate just them."""

import dataclasses

import numpy as np
import pytest

from attnprobe.calibration.checks.alignment import direction
from attnprobe.calibration.truths import Scores, projections
from attnprobe.calibration.worlds import Cell, Replica, all_cells, replica
from attnprobe.probes import alignment, decomposition, proximity

CELLS = [cell for cell in all_cells() if cell.data == "white" or cell.positions == "learned"]


@pytest.fixture(params=CELLS, ids=lambda cell: cell.name)
def world(request: pytest.FixtureRequest) -> Replica:
    """Its population is its sample."""
    cell: Cell = request.param
    made = replica(cell, 0, seed=3)
    return dataclasses.replace(made, rest=made.sample)


def estimates(rows, head: int) -> dict[str, float]:
    return {row.quantity: row.interval.estimate for row in rows if row.head == head}


def test_proximity(world: Replica) -> None:
    found = proximity.measure(world.subject, null="none")
    truth = Scores(world.subject).proximity(found.radius)
    for head in range(2):
        own = estimates(found.rows, head)
        for quantity, values in truth.items():
            assert own[quantity] == pytest.approx(float(values[head]), rel=1e-4, abs=1e-5), quantity


def test_shares(world: Replica) -> None:
    truth = Scores(world.subject).shares()
    assert sum(truth.values()) == pytest.approx(np.ones(2))
    for head in range(2):
        own = estimates(decomposition.measure(world.subject).rows, head)
        for quantity, values in truth.items():
            assert own[quantity] == pytest.approx(float(values[head]), abs=1e-5), quantity


def test_gradients_along_a_direction(world: Replica) -> None:
    found = alignment.measure(world.subject, directions=[direction(world)], shuffles=19, null="none", groups=1)
    for head in range(2):
        own = estimates(found.rows, head)
        for loss in ("label", "reconstruction"):
            truth = projections(world.subject, loss, world.along, real_pairs=True)[:, head].mean()
            assert own[f"{loss}.mean"] == pytest.approx(truth, rel=1e-3, abs=1e-7)
