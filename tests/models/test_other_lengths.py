"""Kernels of state-space mixers at other lengths than that they were made for, and carried over to models of these."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.config import build
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.mixers.state_space.layer import LongConvolution
from attnprobe.tasks import Spec
from attnprobe.training.transfer import transfer

LENGTH, SHORTER, LONGER = 31, 17, 53
NAMES = ("s4", "s4d", "dlr", "spade", "mega")


def model(name: str, length: int, *, seed: int = 0, causal: bool = False, **mixer: object) -> Transformer:
    own = {"mega": {"bias": "rotary"}, "spade": {"window": 5, "augmented": 2}}.get(name, {})
    states = {"states": 6, "step_low": 0.01} if name != "mega" else {"states": 6}
    table = {"d_model": 6, "heads": 2, "layers": 2, "d_mlp": 0, "causal": causal, "positions": "none"}
    table["mixer"] = {"name": name, **states, **own, **mixer}
    spec = Spec(length=length, classes=3, channels=2)
    return make_model(build(TransformerConfig, table), spec, "values", seed=seed).double()


def convolutions(made: Transformer) -> list[LongConvolution]:
    return [module for module in made.modules() if isinstance(module, LongConvolution)]


def difference(one: Tensor, other: Tensor) -> float:
    """Largest one of the weights that both have, as a share of the largest; at the last lag before a position no pair
    is left, and what stands there is none's.
    """
    shared = slice(0, min(one.shape[-1], other.shape[-1]) - 1)
    return float((other[..., shared] - one[..., shared]).detach().abs().max() / one.detach().abs().max())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [SHORTER, LONGER])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_carried_over_keeps_its_kernels(name: str, length: int, causal: bool) -> None:
    source, target = model(name, LENGTH, causal=causal), model(name, length, seed=1, causal=causal)
    transfer(target, source, "all")
    pairs = list(zip(convolutions(source), convolutions(target), strict=True))
    assert len(pairs) == 2
    for one, other in pairs:
        assert difference(one.kernels(LENGTH), other.kernels(length)) < 1e-11
        assert difference(one.kernels(LENGTH), other.kernels(LENGTH)) < 1e-11


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_longer_kernel_goes_on_where_a_shorter_one_ends(name: str, causal: bool) -> None:
    """That of the same system made for the longer length; gradients reach every parameter."""
    short, long = (convolutions(model(name, length, causal=causal))[0] for length in (LENGTH, LONGER))
    for parameter, value in short.named_parameters():
        if parameter != "output":  # of s4 it is drawn for the length
            assert torch.equal(value, long.get_parameter(parameter))
    tolerance = 1e-6 if name in ("s4", "spade") else 1e-12  # their output was rounded to float32 at the start
    found = short.kernels(LONGER)
    assert found.shape[-1] == LONGER
    assert difference(found, long.kernels(LONGER)) < tolerance
    assert difference(found, short.kernels(LENGTH)) < 1e-11
    assert found[..., LENGTH:-1].abs().max() > 1e-6 * found.abs().max()
    gradients = torch.autograd.grad(found.square().sum(), [p for n, p in short.named_parameters() if n != "skip"])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("length", [SHORTER, LONGER])
def test_s4_at_another_length_is_its_unrolled_recurrence(length: int) -> None:
    """C comes from the definition at the length of construction; from there on the state is stepped."""
    source, target = model("s4", LENGTH), model("s4", length, seed=1)
    transfer(target, source, "all")
    made, other = convolutions(source)[0], convolutions(target)[0]
    p = {name: x.detach().numpy() for name, x in made.named_parameters()}
    output, given, low = (p[name][..., 0] + 1j * p[name][..., 1] for name in ("output", "input", "low_rank"))
    for direction, channel in np.ndindex(2, 6):
        twice = [np.concatenate([x, x.conj()]) for x in (
            -np.exp(p["log_decay"][channel]) + 1j * p["frequency"][channel], low[channel], given[channel],
            output[direction, channel],
        )]  # fmt: skip
        matrix, half = np.diag(twice[0]) - np.outer(twice[1], twice[1].conj()), np.exp(p["log_step"][channel]) / 2
        a = np.linalg.solve(np.eye(6) - half * matrix, np.eye(6) + half * matrix)
        state = np.linalg.solve(np.eye(6) - half * matrix, 2 * half * twice[2])
        c = np.linalg.solve((np.eye(6) - np.linalg.matrix_power(a, LENGTH)).T, twice[3])
        wanted = []
        for _ in range(length):
            wanted.append((c @ state).real)
            state = a @ state
        for convolution in (made, other):
            assert np.abs(convolution.kernels(length)[direction, channel].detach().numpy() - wanted).max() < 1e-11


def test_a_part_of_what_makes_a_kernel_is_carried_over_as_such() -> None:
    """C alone, into a system of its own: not the numbers C (1 - A^length) of the other system."""
    source, target = model("s4", LENGTH), model("s4", LENGTH, seed=1)
    transfer(target, source, ("*.output",))
    for one, other in zip(convolutions(source), convolutions(target), strict=True):
        assert not torch.equal(one.get_parameter("output"), other.get_parameter("output"))
        assert (one.readout() - other.readout()).abs().max() < 1e-11  # pyright: ignore[reportCallIssue]


def test_at_the_same_length_everything_is_copied_to_the_bit() -> None:
    source, target = model("s4", LENGTH), model("s4", LENGTH, seed=1)
    transfer(target, source, "all")
    own = target.state_dict()
    assert all(torch.equal(x, own[name]) for name, x in source.state_dict().items() if name.startswith("blocks"))
