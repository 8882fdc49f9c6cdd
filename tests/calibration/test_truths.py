"""The truths of a population by dense formulas: where sample and population are the same, probes estimate just them."""

import dataclasses

import numpy as np
import pytest
import torch

from attnprobe.calibration.checks.alignment import direction
from attnprobe.calibration.truths import Scores, offset_share, on_real_pairs, projected, score_gradients
from attnprobe.calibration.worlds import Cell, N, Replica, all_cells, replica
from attnprobe.capture import ours
from attnprobe.probes import alignment, decomposition, proximity
from attnprobe.probes.decomposition import PARTS
from attnprobe.statistics.jackknife import dealt, grouped_jackknife

CELLS = [cell for cell in all_cells() if cell.data == "white" or cell.positions == "learned"]


@pytest.fixture(params=CELLS, ids=lambda cell: cell.name)
def world(request: pytest.FixtureRequest) -> Replica:
    """Its population is its sample."""
    cell: Cell = request.param
    made = replica(cell, 0, seed=3)
    return dataclasses.replace(made, rest=made.sample)


def estimates(rows, head: int) -> dict[str, float]:
    return {row.quantity: row.interval.estimate for row in rows if row.head == head}


@pytest.mark.parametrize("include_self", [True, False])
def test_proximity(world: Replica, include_self: bool) -> None:
    found = proximity.measure(world.subject, null="none", include_self=include_self)
    scores = Scores(world.subject)
    truth = scores.bias(found.radius, include_self=include_self)
    truth |= scores.mass(found.radius) if include_self else {}
    for head in range(2):
        own = estimates(found.rows, head)
        for quantity, values in truth.items():
            assert own[quantity] == pytest.approx(float(values[head]), rel=1e-4, abs=1e-5), quantity


def test_shares(world: Replica) -> None:
    """The probe leaves groups out; so do we, and take the rest for the population."""
    groups = dealt(N)

    def alone(kept: np.ndarray) -> np.ndarray:
        shares = Scores(ours.of(world.model, world.sample.take(torch.from_numpy(kept)))).shares()
        return np.stack([shares[f"{part}_share"] for part in PARTS])

    whole = alone(np.arange(N))
    np.testing.assert_allclose(whole.sum(0), 1.0)
    without = np.stack([alone(np.flatnonzero(groups != group)) for group in range(groups.max() + 1)])
    truth = grouped_jackknife(whole, without, np.bincount(groups), level=0.95).estimate
    found = decomposition.measure(world.subject).rows
    for head in range(2):
        own = estimates(found, head)
        for part, values in zip(PARTS, truth, strict=True):
            assert own[f"{part}_share"] == pytest.approx(float(values[head]), abs=2e-4), part


def test_gradients_along_a_direction(world: Replica) -> None:
    found = alignment.measure(world.subject, directions=[direction(world)], shuffles=19, null="none", groups=1)
    fitted = on_real_pairs(world.subject, world.along)
    for head in range(2):
        own = estimates(found.rows, head)
        for loss in ("label", "reconstruction"):
            gradients = score_gradients(world.subject, loss)
            share = offset_share(world.subject, gradients)[head]
            assert own[f"{loss}.offset_share"] == pytest.approx(share, rel=1e-3)
            truth = projected(gradients, fitted)[:, head].mean()
            assert own[f"{loss}.mean"] == pytest.approx(truth, rel=1e-3, abs=1e-7)
