"""Two independent codes: on the theorems' own setting, attnprobe's attention reproduces theory's closed forms.

The setting is one head whose scores are the score offset alone (W_Q = W_K = 0), values x W_V, no output projection,
mean pooling and a linear readout; for reconstruction, a hidden position is a zero vector and the prediction is c times
the attention output.
"""

import numpy as np
import pytest
import torch

from attnprobe.models import Attention
from theory import predictions

LENGTH, DIM, N = 11, 5, 7
TOLERANCE = 1e-10


def attention(value: np.ndarray) -> Attention:
    """Scores from the offset only; output = pattern @ (x value)."""
    module = Attention(DIM, 1, layer=0, causal=False, rotary=None).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.v.weight.copy_(torch.from_numpy(value.T))
        module.o.weight.copy_(torch.eye(DIM))
    return module


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def periodic(kernel: np.ndarray) -> np.ndarray:
    index = np.arange(len(kernel))
    return kernel[(index[None] - index[:, None]) % len(kernel)]


def label_output(module: Attention, x: torch.Tensor, offset: torch.Tensor, readout: np.ndarray) -> torch.Tensor:
    return module(x, score_offset=offset).mean(1) @ torch.from_numpy(readout)


@pytest.mark.parametrize("kind", ["random", "periodic", "key-only"])
def test_label_derivative_and_curvature(rng: np.random.Generator, kind: str) -> None:
    """(1.6) and (2.2): slope and curvature of the pooled output along a direction at uniform attention."""
    x, value, readout = rng.standard_normal((N, LENGTH, DIM)), rng.standard_normal((DIM, DIM)), rng.standard_normal(DIM)
    direction = {
        "random": rng.standard_normal((LENGTH, LENGTH)),
        "periodic": periodic(rng.standard_normal(LENGTH)),
        "key-only": np.ones((LENGTH, 1)) * rng.standard_normal(LENGTH),
    }[kind]
    module, inputs = attention(value), torch.from_numpy(x)
    t = torch.zeros(N, dtype=torch.float64, requires_grad=True)
    offset = t[:, None, None, None] * torch.from_numpy(direction)
    (slope,) = torch.autograd.grad(label_output(module, inputs, offset, readout).sum(), t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), t)
    projected = x @ value @ readout
    assert np.abs(slope.detach().numpy() - predictions.label_derivative(direction, projected)).max() < TOLERANCE
    assert np.abs(curvature.numpy() - predictions.label_curvature(direction, projected)).max() < TOLERANCE
    if kind == "periodic":
        assert slope.abs().max() < TOLERANCE  # blind
    else:
        assert slope.abs().max() > 1e-3  # visible: the test above compares something


def test_query_free_scores_get_query_free_gradients(rng: np.random.Generator) -> None:
    """(3.1): the same gradient row for every query, of any loss, wherever the scores do not depend on the query."""
    x, value, readout = rng.standard_normal((N, LENGTH, DIM)), rng.standard_normal((DIM, DIM)), rng.standard_normal(DIM)
    profile = rng.standard_normal(LENGTH)
    start = torch.from_numpy(np.tile(profile, (LENGTH, 1)))[None, None].requires_grad_()
    output = label_output(attention(value), torch.from_numpy(x), start, readout)
    slopes = np.sin(np.arange(N))  # any loss enters through its slope l'(f) alone
    (gradient,) = torch.autograd.grad((output * torch.from_numpy(slopes)).mean(), start)
    predicted = predictions.query_free_gradient(profile, x @ value @ readout, slopes)
    assert np.abs(gradient[0, 0].numpy() - predicted[None]).max() < TOLERANCE
    assert np.abs(predicted).max() > 1e-3


@pytest.mark.parametrize("gain", [0.3, 1.7])
def test_reconstruction_gradient(rng: np.random.Generator, gain: float) -> None:
    """(4.1) with one hidden position: the whole gradient matrix, from the data's own second moments."""
    x = rng.standard_normal((N, LENGTH, DIM)).cumsum(1)
    moments = np.einsum("nid,njd->ij", x, x) / (N * DIM)  # E <x_i, x_j> / d over this data set
    module = attention(np.eye(DIM))
    offset = torch.zeros(1, 1, LENGTH, LENGTH, dtype=torch.float64, requires_grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for m in range(LENGTH):
        seen = torch.from_numpy(x).clone()
        seen[:, m] = 0
        prediction = gain * module(seen, score_offset=offset)[:, m]
        loss = loss + (prediction - torch.from_numpy(x[:, m])).square().sum(-1).mean() / DIM / LENGTH
    (gradient,) = torch.autograd.grad(loss, offset)
    predicted = predictions.reconstruction_gradient(moments, gain)
    assert np.abs(gradient[0, 0].numpy() - predicted).max() < TOLERANCE
    assert np.abs(predicted).max() > 1e-3


def test_periodic_ray_never_changes_the_pooled_output(rng: np.random.Generator) -> None:
    """(2.1): along a periodic ray the pattern stays doubly stochastic, so the output does not move at all."""
    x, value, readout = rng.standard_normal((N, LENGTH, DIM)), rng.standard_normal((DIM, DIM)), rng.standard_normal(DIM)
    direction = torch.from_numpy(periodic(rng.standard_normal(LENGTH)))
    module = attention(value)
    predicted = predictions.doubly_stochastic_output(x @ value @ readout, 0.0)
    for t in (0.0, 0.5, 3.0, 20.0):
        offset = (t * direction)[None, None]
        got = label_output(module, torch.from_numpy(x), offset, readout).detach().numpy()
        assert np.abs(got - predicted).max() < TOLERANCE
