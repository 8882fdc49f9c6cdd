"""Replicas: new models and new data, the same at every call, without structure by position or label."""

import numpy as np
import pytest
import torch

from attnprobe.calibration import worlds
from attnprobe.calibration.planted import PLANTED, labels
from attnprobe.calibration.worlds import LENGTH, Cell, N, all_cells, chosen_cells, replica
from attnprobe.errors import ConfigError

CELL = Cell(positions="learned", visibility="padded", data="permuted")


def test_a_replica_is_the_same_at_every_call_and_no_other_is() -> None:
    first, again, next_one, other = (
        replica(CELL, number, seed=seed) for number, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert torch.equal(first.sample.inputs, again.sample.inputs)
    for another in (next_one, other):
        assert not torch.equal(first.sample.inputs, another.sample.inputs)
        assert not torch.equal(first.sample.labels, another.sample.labels)
        weights = (world.model.state_dict()["reconstruction_head.weight"] for world in (first, another))
        assert not torch.equal(*weights)
    assert len(first.sample) == N


def test_sample_and_population_share_no_sequence() -> None:
    world = replica(Cell(positions="none", visibility="full", data="white"), 0, seed=0)
    seen = {tuple(row) for row in world.sample.inputs[..., 0].tolist()}
    assert not seen & {tuple(row) for row in world.rest.inputs[..., 0].tolist()}


def test_the_order_of_positions_is_shared_by_the_images_of_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(3000)[:, None, None] * 100 + torch.arange(LENGTH)[:, None]
    _, spec, _ = worlds.real_images()
    monkeypatch.setattr(worlds, "real_images", lambda: (images, spec, "numbers"))
    orders = []
    for number in range(2):
        values = replica(CELL, number, seed=0).sample.inputs[..., 0] % 100
        assert (values == values[0]).all()
        orders.append(values[0].tolist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(LENGTH))


def test_every_head_counts_as_often_as_any_other() -> None:
    heads = [replica(CELL, number, seed=0).head for number in range(40)]
    assert 8 <= sum(heads) <= 32


def test_cells_are_chosen_by_their_axes() -> None:
    assert len(all_cells()) == 32
    chosen = chosen_cells(["positions=learned,rotary", "data=white"])
    assert [cell.name for cell in chosen] == [
        f"{positions}/{visibility}/white" for positions in ("learned", "rotary") for visibility in worlds.VISIBILITIES
    ]


@pytest.mark.parametrize("text", ["position=learned", "positions=leart", "positions", "data=white,"])
def test_filters_that_fit_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cells"):
        chosen_cells([text])


def test_planted_labels_are_found_the_more_the_larger_the_effect() -> None:
    p = [np.median([labels(number, size, 0)[0].value or 0 for number in range(8)]) for size in (0.0, 2.0)]
    assert p[1] <= 0.01 < p[0]


@pytest.mark.parametrize("effect", PLANTED)
def test_every_planted_effect_is_told_to_the_probe_it_is_for(effect: str) -> None:
    planted = PLANTED[effect]
    assert list(planted.sizes) == sorted(planted.sizes)
    outcomes = planted.measure(0, planted.sizes[-1], 0)
    assert any(outcome.kind == "power" for outcome in outcomes)
    assert all(outcome.value is not None for outcome in outcomes)
    assert outcomes == planted.measure(0, planted.sizes[-1], 0)
