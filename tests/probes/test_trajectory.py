import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.capture import ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import proximity
from attnprobe.probes.trajectory import Trajectory, log_spaced
from attnprobe.tasks.textures import Textures


def test_grid() -> None:
    assert [s for s in range(100) if log_spaced(2.0, s)] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert [s for s in range(30) if log_spaced(1.5, s)] == [0, 1, 2, 3, 5, 8, 12, 18, 27]


@given(st.floats(1.01, 20), st.integers(1, 10_000))
def test_grid_is_log_spaced(factor: float, steps: int) -> None:
    grid = [s for s in range(min(steps, 600)) if log_spaced(factor, s)]
    assert grid[:2] == [0, 1][: len(grid)]
    for earlier, later in itertools.pairwise(grid[1:]):
        assert later == max(earlier + 1, int(np.ceil(earlier * factor)))


def test_numbers_are_those_of_the_probes_and_the_model_is_left_alone() -> None:
    data = Textures(side=5, n_train=20, n_validation=40, n_test=10).load()
    model = make_model(TransformerConfig(d_model=8, heads=2, d_mlp=8), data.spec, "values", seed=0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.random.get_rng_state()
    subject = ours.of(model, data.validation, seed=3)
    records = Trajectory(sequences=16, seed=3).measure(subject)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random_state)
    whole = proximity.measure(subject, n=16, null="none", seed=3)
    wanted = {row.head: row.interval.estimate for row in whole.rows if row.quantity == "proximity_bias"}
    got = {r["head"]: r["estimate"] for r in records if r["quantity"] == "proximity_bias"}
    assert got == pytest.approx(wanted)
    quantities = {"proximity_bias", "score_sd", "label.t", "label.t.null", "label.dependent.mean", "label.dependent.t"}
    assert {r["quantity"] for r in records} == quantities | {"reconstruction.t"}
    assert {r["direction"] for r in records} == {None, "contrast r=2"}
