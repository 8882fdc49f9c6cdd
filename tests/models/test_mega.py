"""MEGA against loops over positions and states, written out here in float64."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import build
from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers.mega import Mega
from attnprobe.models.mixers.offset_bias import OffsetBias, RotaryBias
from attnprobe.models.transformer import Block
from attnprobe.tasks import Spec

WIDTH, STATES, SHARED, VALUE, BATCH = 5, 3, 4, 7, 3
SIZES = {"name": "mega", "states": STATES, "d_shared": SHARED, "d_value": VALUE}


def block(length: int, *, causal: bool = False, norm_place: str = "before", **settings: Any) -> Block:
    table = {
        "d_model": WIDTH, "heads": 1, "layers": 1, "d_mlp": 0, "causal": causal, "positions": "none",
        "norm_place": norm_place, "mixer": {**SIZES, **settings},
    }  # fmt: skip
    model = make_model(build(TransformerConfig, table), Spec(length=length, classes=3, channels=2), "values", seed=0)
    made = model.double().blocks[0]
    assert isinstance(made, Block)
    generator = torch.Generator().manual_seed(1)  # large enough that every part counts
    for parameter in made.get_submodule("mega").parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=generator)
    return made


def layer(length: int, **settings: Any) -> Mega:
    found = block(length, **settings).get_submodule("mega")
    assert isinstance(found, Mega)
    return found


def inputs(length: int) -> Tensor:
    return torch.randn(BATCH, length, WIDTH, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def moving_average(made: Mega, x: Tensor, direction: int) -> Tensor:
    """(length, channel), one position after the other; backwards the last one comes first."""
    own = made.convolution
    alpha, delta, beta, eta = (p[direction] for p in (own.alpha, own.delta, own.beta, own.eta))
    alpha, delta = alpha.sigmoid(), delta.sigmoid()
    state, found = torch.zeros(WIDTH, STATES, dtype=torch.float64), []
    for row in x.flip(0) if direction else x:
        state = alpha * beta * row[:, None] + (1 - alpha * delta) * state
        found.append((eta * state).sum(-1) / math.sqrt(STATES))
    return torch.stack(found[::-1] if direction else found)


@pytest.mark.parametrize("causal", [False, True])
def test_the_moving_average_is_its_recurrence(causal: bool) -> None:
    made, x = layer(11, causal=causal), inputs(11)
    for here in x:
        wanted = made.convolution.skip * here
        for direction in range(1 if causal else 2):
            wanted = wanted + moving_average(made, here, direction)
        assert (made.convolution(here[None])[0] - wanted).abs().max() < 1e-10


def test_it_reaches_as_far_as_it_is_let() -> None:
    whole, part = layer(11).convolution.kernels(11), layer(11, reach=4).convolution.kernels(11)
    assert (part[0, :, :4] - whole[0, :, :4]).abs().max() == 0
    assert (part[1, :, :3] - whole[1, :, :3]).abs().max() == 0  # the own position is in the first
    assert part[0, :, 4:].abs().max() == part[1, :, 3:].abs().max() == 0


def by_hand(made: Mega, x: Tensor, real: int, size: int) -> Tensor:
    """(length, d_model) of one sequence, pair by pair; only its first ``real`` positions count."""
    length = len(x)
    directions = range(made.convolution.directions)
    masked = x * (torch.arange(length) < real)[:, None]
    average = F.silu(sum(moving_average(made, masked, d) for d in directions) + made.convolution.skip * masked)
    shared, both = F.silu(made.shared(average)), made.queries_and_keys
    q, k = (shared * both.scale[n] + both.shift[n] for n in range(2))
    value, mixed, bias = F.silu(made.value(x)), torch.zeros(length, VALUE, dtype=torch.float64), made.bias(size)[0]
    for query in range(real):
        first = query // size * size
        keys = range(first, min(query + 1 if made.causal else first + size, real))
        scores = [q[query] @ k[key] for key in keys]
        added = [bias[query - first, key - first] for key in keys]
        if made.settings.pattern == "softmax":
            weights = torch.stack([s / SHARED**0.5 + b for s, b in zip(scores, added, strict=True)]).softmax(0)
        else:
            each = torch.stack([s / len(keys) + b for s, b in zip(scores, added, strict=True)])
            weights = torch.special.ndtr((each - math.sqrt(1 / 2)) * math.sqrt(4 * math.pi))
        mixed[query] = sum(w * value[key] for w, key in zip(weights, keys, strict=True))
    h = F.silu(made.candidate(average) + made.out(mixed * F.silu(made.reset(average))))
    return made.gate(average).sigmoid() * (h - x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", ["offsets", "rotary"])
@pytest.mark.parametrize("pattern", ["softmax", "laplace"])
@pytest.mark.parametrize("chunk", [None, 4])
def test_the_layer_is_its_formula_pair_by_pair(chunk: int | None, pattern: str, bias: str, causal: bool) -> None:
    length, real = 11, (11, 2, 7)
    sizes = {} if chunk is None else {"chunk": chunk}
    made, x = layer(length, causal=causal, pattern=pattern, bias=bias, **sizes), inputs(length)
    valid = torch.arange(length) < torch.tensor(real)[:, None]
    got = made(x, residual=x, valid=valid)
    for n, count in enumerate(real):
        wanted = by_hand(made, x[n], count, chunk or length)
        assert (got[n, :count] - wanted[:count]).abs().max() < 1e-12
    assert (made(x, residual=x)[0] - got[0]).abs().max() < 1e-12


def test_one_chunk_is_the_whole() -> None:
    x = inputs(11)
    for chunk in (11, 12):
        made, whole = layer(11, chunk=chunk), layer(11)
        made.load_state_dict(whole.state_dict())
        assert torch.equal(made(x, residual=x), whole(x, residual=x))


@pytest.mark.parametrize("pattern", ["softmax", "laplace"])
def test_gradients_are_those_of_finite_differences(pattern: str) -> None:
    made, x = layer(7, pattern=pattern, chunk=3), inputs(7)[:2].requires_grad_()
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in made.named_parameters()), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,), {"residual": x})

    assert torch.autograd.gradcheck(run, (x, *values))


def test_without_average_and_gates_it_is_attention_of_one_head() -> None:
    made, x = layer(11), inputs(11)
    with torch.no_grad():
        made.convolution.eta.zero_()
        made.convolution.skip.fill_(1)
        for part in (made.reset, made.gate, made.candidate):
            part.weight.zero_()
            part.bias.zero_()
        made.bias.table.zero_()
        made.reset.bias.fill_(1.2784645427610738)  # where silu is 1
        made.gate.bias.fill_(50)  # open
    q, k = made.queries_and_keys(F.silu(made.shared(F.silu(x))))
    attended = F.scaled_dot_product_attention(q, k, F.silu(made.value(x)))
    assert (made(x, residual=x) + x - F.silu(made.out(attended))).abs().max() < 1e-12


@pytest.mark.parametrize("norm_place", ["before", "after"])
def test_a_block_is_a_gated_mean_of_its_input_and_what_was_made_of_it(norm_place: str) -> None:
    made, x = block(11, norm_place=norm_place), inputs(11)
    mixer, norm = made.get_submodule("mega"), made.get_submodule("norm1")
    seen = norm(x) if norm_place == "before" else x
    added = mixer(seen, residual=torch.zeros_like(x))  # gate h
    gate = added - mixer(seen, residual=torch.ones_like(x))
    mean = added + (1 - gate) * x
    assert (gate > 0).all()
    assert (gate < 1).all()
    assert (made(x, None, None, None) - (mean if norm_place == "before" else norm(mean))).abs().max() < 1e-12


def test_biases_are_functions_of_the_offset() -> None:
    simple = OffsetBias(9).double()
    simple.table.data.copy_(torch.arange(-8, 9))
    place = torch.arange(6, dtype=torch.float64)
    assert torch.equal(simple(6)[0], place - place[:, None])  # key - query
    rotary = RotaryBias(4).double()
    torch.manual_seed(0)
    a, b = (torch.nn.init.normal_(p).detach() for p in (rotary.a, rotary.b))

    def turned(x: Tensor, position: int) -> Tensor:
        """Channels 0 and 2 turn by 1, 1 and 3 by 1 / 100 at every position."""
        angle = position * torch.tensor([1.0, 0.01], dtype=torch.float64)
        return torch.view_as_real(torch.complex(x[:2], x[2:]) * torch.exp(1j * angle)).flatten()

    for query in range(5):
        for key in range(5):
            assert rotary(5)[0, query, key].item() == pytest.approx((turned(a, query) @ turned(b, key)).item())


def test_published_starts() -> None:
    table = {"d_model": 64, "heads": 1, "layers": 1, "mixer": {"name": "mega"}}
    model = make_model(build(TransformerConfig, table), Spec(length=50, classes=3, channels=2), "values", seed=0)
    made = model.blocks[0].get_submodule("mega")
    assert isinstance(made, Mega)
    own = made.convolution
    for found, mean, std in (
        (own.alpha, 0, 0.2), (own.delta, 0, 0.2), (own.beta[..., ::2], 1, 0.02), (own.beta[..., 1::2], -1, 0.02),
        (own.eta, 0, 1), (made.gate.weight, 0, 0.02), (made.shared.weight, 0, 0.02),
    ):  # fmt: skip
        assert found.std().item() == pytest.approx(std, rel=0.1)
        assert found.mean().item() == pytest.approx(mean, abs=5 * std / found.numel() ** 0.5)
    assert made.gate.bias.abs().max() == made.queries_and_keys.shift.abs().max() == 0


@pytest.mark.parametrize(
    "settings", [{"states": 0}, {"d_value": 0}, {"chunk": 0}, {"reach": -1}, {"bias": "rotary", "d_shared": 3}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(settings)[-1]):
        build(TransformerConfig, {"mixer": {"name": "mega", **settings}})
