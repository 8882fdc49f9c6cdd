"""Locality of long kernels against loops over all pairs."""

import numpy as np
import pytest
import torch

from attnprobe.capture import convolutions
from attnprobe.config import build
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers.state_space.layer import LongConvolution
from attnprobe.probes.kernels import measure
from attnprobe.scores.kernel_sums import kernel_sums
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Spec

LAYOUTS = [Layout(shape=shape, causal=causal) for shape in ((11,), (5, 3), (3, 7), (1, 5)) for causal in (False, True)]


def place(layout: Layout, position: int) -> np.ndarray:
    return np.array(np.unravel_index(position, layout.shape), dtype=float)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sums_are_those_over_all_pairs(layout: Layout) -> None:
    length, radius = layout.length, 1.5
    weights = np.random.default_rng(0).exponential(size=(4, 2 * length - 1)) ** 3
    found = kernel_sums(weights, layout, radius)
    near, uniform, distance, entropy = (np.zeros(4) for _ in range(4))
    for query in range(length):
        keys = [key for key in range(length) if key <= query or not layout.causal]
        away = np.array([np.linalg.norm(place(layout, key) - place(layout, query)) for key in keys])
        pattern = np.stack([weights[:, key - query + length - 1] for key in keys], -1)
        pattern /= pattern.sum(-1, keepdims=True)
        near += pattern[:, away <= radius].sum(-1)
        uniform += (away <= radius).mean()
        distance += pattern @ away / length
        entropy -= (pattern * np.log(pattern)).sum(-1) / length
    for got, wanted in zip(found, (near / uniform, distance, entropy), strict=True):
        assert got == pytest.approx(wanted, rel=1e-8)  # differences of long sums


def test_known_kernels() -> None:
    layout = Layout(shape=(9,))
    only_self, equal, silent = np.zeros((3, 17))
    only_self[8], equal[:] = 2.0, 0.3
    found = kernel_sums(np.stack([only_self, equal, silent]), layout, 3.0)
    assert found.distance[0] == found.entropy[0] == 0
    assert found.near_mass[1] == pytest.approx(1)
    assert found.entropy[1] == pytest.approx(np.log(9))
    assert all(np.isnan(values[2]) for values in found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["s4", "s4d", "dlr", "spade", "mega"])
def test_kernels_by_offset_are_what_a_layer_does_to_an_impulse(name: str, causal: bool) -> None:
    spec = Spec(length=7, classes=2, channels=1)
    table = {"d_model": 4, "heads": 1, "d_mlp": 0, "causal": causal, "mixer": {"name": name, "states": 6}}
    model = make_model(build(TransformerConfig, table), spec, "values", seed=0).double()
    (kernel,) = convolutions.kernels(model)
    convolution = model.blocks[0].get_submodule(f"{name}.convolution")
    assert isinstance(convolution, LongConvolution)
    for key in range(7):
        impulse = torch.zeros(1, 7, 4, dtype=torch.float64)
        impulse[0, key] = 1
        out = (convolution(impulse) - convolution.skip * impulse)[0].detach().numpy()
        wanted = np.stack([kernel[:, key - query + 6] for query in range(7)])
        assert np.abs(out - wanted).max() < 1e-12
    found = measure([kernel], convolutions.layout(model))
    assert np.array_equal(found.largest, np.abs(kernel).max(0)[None])
    assert (found.largest[0, :6] > 0).all()
    assert (found.largest[0, 7:] > 0).all() != causal


@pytest.mark.parametrize("causal", [False, True])
def test_of_spade_only_the_layers_beside_a_state_space_have_one(causal: bool) -> None:
    table = {"d_model": 4, "heads": 1, "layers": 3, "causal": causal, "mixer": {"name": "spade", "states": 6}}
    table["mixer"]["augmented"] = 2
    model = make_model(build(TransformerConfig, table), Spec(length=7, classes=2), "values", seed=0)
    assert len(convolutions.kernels(model)) == 2
    start = convolutions.at_the_start(model, 0)
    for mine, other in zip(convolutions.kernels(model), convolutions.kernels(start), strict=True):
        assert np.array_equal(mine, other)


def test_attention_has_none() -> None:
    model = make_model(TransformerConfig(), Spec(length=7, classes=2), "values", seed=0)
    with pytest.raises(NotApplicableError, match="no long convolutions"):
        measure(convolutions.kernels(model), convolutions.layout(model))
