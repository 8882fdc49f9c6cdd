"""Kernels of state-space mixers against the recurrences they unroll, written out here a second time in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.config import build
from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers.state_space.hippo import diagonal_plus_low_rank, legs
from attnprobe.models.mixers.state_space.layer import StateSpaceLayer, unchanging
from attnprobe.models.mixers.state_space.s4d import frequencies
from attnprobe.tasks import Spec

WIDTH, STATES = 6, 10
NAMES = ("s4", "s4d", "dlr")


def layer(name: str, length: int, *, causal: bool = False, width: int = WIDTH, **settings) -> StateSpaceLayer:
    mixer = {"name": name, "states": STATES, **settings}
    table = {"d_model": width, "heads": 1, "layers": 1, "d_mlp": 0, "mixer": mixer, "causal": causal}
    model = make_model(build(TransformerConfig, table), Spec(length=length, classes=3, channels=2), "values", seed=0)
    found = model.double().blocks[0].get_submodule(name)
    assert isinstance(found, StateSpaceLayer)
    return found


def parameters(made: StateSpaceLayer) -> dict[str, np.ndarray]:
    found = {name: p.detach().numpy() for name, p in made.convolution.named_parameters()}
    return {k: v[..., 0] + 1j * v[..., 1] if k in ("output", "input", "low_rank") else v for k, v in found.items()}


def unrolled(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: int) -> np.ndarray:
    """Re C A^l B for l = 0, 1, ... by stepping the state."""
    states = [b]
    for _ in range(length - 1):
        states.append(a @ states[-1])
    return np.real([c @ x for x in states])


def recurrence(name: str, made: StateSpaceLayer, length: int, direction: int, channel: int) -> np.ndarray:
    p = parameters(made)
    if name == "dlr":
        eigenvalue = np.exp(-(p["root_decay"] ** 2) + 1j * p["frequency"])
        return unrolled(np.diag(eigenvalue), np.ones(STATES), p["output"][direction, channel], length)
    system, step = channel % len(p["frequency"]), math.exp(p["log_step"][channel])
    both = np.concatenate
    eigenvalue = -np.exp(p["log_decay"][system]) + 1j * p["frequency"][system]
    given, c = p["input"][system], p["output"][direction, channel]
    low = p["low_rank"][system] if name == "s4" else np.zeros_like(given)
    low, given, c = (both([x, x.conj()]) for x in (low, given, c))
    matrix = np.diag(both([eigenvalue, eigenvalue.conj()])) - np.outer(low, low.conj())
    one = np.eye(STATES)
    if made.convolution.settings.__dict__.get("discretization") == "zoh":
        a = np.diag(np.exp(step * np.diag(matrix)))
        b = (np.diag(a) - 1) / np.diag(matrix) * given
    else:
        a = np.linalg.solve(one - step / 2 * matrix, one + step / 2 * matrix)
        b = np.linalg.solve(one - step / 2 * matrix, step * given)
    if name == "s4":  # what is kept is C (1 - A^length) of the longest sequence
        c = np.linalg.solve((one - np.linalg.matrix_power(a, made.convolution.length)).T, c)
    return unrolled(a, b, c, length)


VARIANTS = [("s4", {}), ("s4", {"copies": 2}), ("dlr", {}), ("s4d", {"copies": 3})] + [
    ("s4d", {"spectrum": s, "discretization": d}) for s in ("lin", "inv", "legs") for d in ("zoh", "bilinear")
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [16, 23])
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_kernels_are_the_unrolled_recurrence(name: str, settings: dict, length: int, causal: bool) -> None:
    made = layer(name, length, causal=causal, **settings)
    for shown in (length, length - 5):
        kernels = made.convolution.kernels(shown).detach().numpy()
        assert kernels.shape == (1 if causal else 2, WIDTH, shown)
        for direction, channel in np.ndindex(kernels.shape[:2]):
            wanted = recurrence(name, made, shown, direction, channel)
            assert np.abs(kernels[direction, channel] - wanted).max() < 1e-10
            assert np.abs(wanted).max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_enough_for_long_sequences(name: str) -> None:
    """Phases of thousands of turns once had 3 to 4 digits: DLR was off by 2e-4, S4D by 1e-5 of its largest weight."""
    exact = layer(name, 16384, width=4, states=32).convolution
    wanted = exact.kernels(16384)
    error = (exact.float().kernels(16384) - wanted).abs().max() / wanted.abs().max()
    assert error < 2e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_layer_is_its_kernels_position_by_position(name: str, causal: bool) -> None:
    length = 13
    made = layer(name, length, causal=causal)
    x = torch.randn(3, length, WIDTH, dtype=torch.float64)
    kernels, skip = made.convolution.kernels(length), made.convolution.skip
    y = torch.zeros_like(x)
    for here in range(length):
        for there in range(here + 1):
            y[:, here] += kernels[0, :, here - there] * x[:, there]
        for there in range(here + 1, 0 if causal else length):
            y[:, here] += kernels[1, :, there - here - 1] * x[:, there]
    value, gate = made.out(torch.nn.functional.gelu(y + skip * x)).chunk(2, -1)
    assert (made(x) - value * gate.sigmoid()).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    made = layer(name, 7, width=3, states=4)
    convolution = made.convolution
    names, values = zip(
        *((n, p.detach().clone().requires_grad_()) for n, p in convolution.named_parameters()), strict=True
    )
    u = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)

    def run(u: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(convolution, dict(zip(names, values, strict=True)), (u,))

    assert torch.autograd.gradcheck(run, (u, *values))


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_computed_once_while_nothing_changes(name: str, monkeypatch) -> None:
    convolution = layer(name, 13).convolution
    calls, whole = [], convolution.kernels
    monkeypatch.setattr(convolution, "kernels", lambda length: calls.append(length) or whole(length))
    x = torch.randn(2, 13, WIDTH, dtype=torch.float64)
    wanted, short = convolution(x).detach(), convolution(x[:, :9]).detach()
    calls.clear()
    with unchanging(convolution):
        with torch.inference_mode():
            assert all(torch.equal(convolution(x), wanted) for _ in range(3))
            assert torch.equal(convolution(x[:, :9]), short)
            assert torch.equal(convolution(x), wanted)
        assert calls == [13, 9, 13]
        assert convolution(x).requires_grad  # with gradients as ever
    with torch.no_grad():
        convolution.output.mul_(2)
        assert not torch.allclose(convolution(x), wanted)
        assert not torch.allclose(convolution(x[:, :9]), short)
    assert calls == [13, 9, 13, 13, 13, 9]


def test_legs_is_its_closed_form() -> None:
    a, b = legs(9)
    for n, k in np.ndindex(9, 9):
        wanted = -math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1) if n == k else 0
        assert a[n, k] == pytest.approx(wanted, abs=1e-12)
    assert b == pytest.approx([math.sqrt(2 * n + 1) for n in range(9)])


def test_diagonal_plus_low_rank_has_the_transfer_function_of_legs() -> None:
    """B and P are known up to a phase of each eigenvector, which no input and output of the system shows."""
    a, b = legs(16)
    eigenvalue, p, given = diagonal_plus_low_rank(16)
    eigenvalue, p, given = (np.concatenate([x, x.conj()]) for x in (eigenvalue, p, given))
    mine = np.diag(eigenvalue) - np.outer(p, p.conj())
    readout = np.sqrt(np.arange(16) + 0.5)  # P of the closed form, seen from the eigenvectors as P^*
    for s in (0.3, 1 + 2j, 40j):
        wanted = readout @ np.linalg.solve(s * np.eye(16) - a, b)
        assert p.conj() @ np.linalg.solve(s * np.eye(16) - mine, given) == pytest.approx(wanted, rel=1e-9)
    assert np.sort(np.linalg.eigvals(mine).real)[[0, -1]] == pytest.approx([-16, -1], abs=1e-3)  # those of LegS


def test_frequencies_at_the_start() -> None:
    """Gu et al. 2022 (S4D), section 4.3."""
    assert frequencies("lin", 6) == pytest.approx([0, math.pi, 2 * math.pi])
    assert frequencies("inv", 6) == pytest.approx([6 / math.pi * x for x in (5, 1, 0.2)])
    assert (np.diff(np.abs(frequencies("legs", 6))) < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_random_starts_are_normal(name: str) -> None:
    made = layer(name, 64, width=32, start="normal")
    values = torch.cat([p.flatten() for p in made.convolution.parameters()])
    assert values.std().item() == pytest.approx(0.1, rel=0.1)
    assert abs(values.mean().item()) < 0.01
    assert made(torch.randn(2, 64, 32, dtype=torch.float64)).isfinite().all()


def test_published_starts() -> None:
    p = parameters(layer("s4", 20, width=256, states=64))
    assert math.log(1e-3) <= p["log_step"].min() < math.log(2e-3)
    assert math.log(5e-2) < p["log_step"].max() <= math.log(0.1)
    assert np.exp(p["log_decay"]) == pytest.approx(0.5)
    assert (np.abs(p["output"]) ** 2).mean() < 2  # C (1 - A^length) of complex normal C
    p = parameters(layer("dlr", 20, width=64, states=128))
    assert p["frequency"] == pytest.approx(2 * np.pi * np.arange(128) / 128, rel=1e-6)
    steps = 2 * p["root_decay"] ** 2
    assert steps.min() * 1.001 >= 1e-4
    assert steps.max() <= 0.1001
    assert (np.abs(p["output"]) ** 2).mean() == pytest.approx(2 / 128**2, rel=0.1)


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"name": "s4", "states": 0}, "states"),
        ({"name": "s4d", "states": 7}, "even"),
        ({"name": "s4", "step_high": 1e-4}, "step_high"),
        ({"name": "dlr", "states": 0}, "states"),
        ({"name": "s4", "lr": -1.0}, "lr"),
    ],
)
def test_impossible_settings_are_refused(mixer: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TransformerConfig, {"mixer": mixer})


def test_copies_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"model.mixer.copies must divide d_model, got 4 and 6"):
        build(TransformerConfig, {"d_model": 6, "heads": 1, "mixer": {"name": "s4", "copies": 4}}, "model")


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_round_kernels(name: str) -> None:
    """There is no Fourier transform of bfloat16, and positions far away need exact phases."""
    convolution = layer(name, 13).convolution.float()
    x = torch.randn(2, 13, convolution.channels, generator=torch.Generator().manual_seed(0))
    exact = convolution(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolution(x), exact)
