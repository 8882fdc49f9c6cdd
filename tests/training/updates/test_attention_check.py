"""The check of a kernel's numbers: right ones pass in every shape, a wrong one in any respect does not."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend

from attnprobe.errors import ConfigError
from attnprobe.run import Engine
from attnprobe.scores.visibility import Visibility
from attnprobe.training.updates import attention_check, attention_kernels
from attnprobe.training.updates.attention_check import (
    TOLERANCE,
    Size,
    computed,
    deviation,
    error,
    formula,
    lengths_to_check,
    make_case,
)
from attnprobe.training.updates.attention_kernels import Shape, choose_attention

CPU = torch.device("cpu")
SIZE = Size(sequences=2, heads=3, length=41, d_head=7)


@given(length=st.integers(1, 4000), masked=st.booleans())
def test_all_remainders_of_trimmed_batches_are_tried(length: int, masked: bool) -> None:
    lengths = lengths_to_check(length, masked=masked)
    assert lengths[0] == length
    assert all(0 < n <= length for n in lengths)
    if not masked:
        assert lengths == [length]
    elif length > 128:
        assert {n % 128 for n in lengths} >= {32, 64, 96}
        assert min(lengths) > length - 128


@settings(max_examples=25)
@given(
    length=st.integers(1, 300),
    d_head=st.integers(1, 33),
    masked=st.booleans(),
    causal=st.booleans(),
    low=st.booleans(),
)
def test_the_formula_is_what_autograd_finds_in_float64(length, d_head, masked, causal, low) -> None:
    size = Size(sequences=2, heads=2, length=length, d_head=d_head)
    case = make_case(size, "float32", CPU, masked=masked, causal=causal, low=low)
    q, k, v = (t.double().requires_grad_() for t in (case.q, case.k, case.v))
    visible = Visibility(causal=causal, valid=case.valid).whole(length, CPU)
    scores = q @ k.mT * d_head**-0.5
    output = (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1) @ v
    q_gradient, k_gradient, v_gradient = torch.autograd.grad(output, (q, k, v), case.gradient.double())
    assert (q_gradient.abs().sum((0, 1, 3)) > 0).sum() <= len(case.rows)
    wanted = (output.detach()[:, :, case.rows], q_gradient[:, :, case.rows], k_gradient, v_gradient)
    for (value, terms), right in zip(formula(case), wanted, strict=True):
        assert (value - right).abs().max() <= 1e-11 * terms.max()
        assert (terms >= value.abs() - 1e-9).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_torchs_kernels_of_the_cpu_are_right(precision, masked: bool, causal: bool) -> None:
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        found = deviation(backend, SIZE, precision, CPU, masked=masked, causal=causal)
        assert 0 < found < TOLERANCE[precision] / 2  # measured: up to 1.6e-5 and 6.6e-3
    with pytest.raises(RuntimeError):
        deviation(SDPBackend.CUDNN_ATTENTION, SIZE, precision, CPU, masked=masked, causal=causal)


@pytest.mark.parametrize("d_head", [64, 96, 128, 200])
def test_torchs_kernels_are_right_in_wide_heads(d_head: int) -> None:
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        found = deviation(backend, Size(2, 1, 192, d_head), "float32", CPU, masked=True, causal=True)
        assert 0 < found < TOLERANCE["float32"] / 2  # measured: up to 1.2e-4


def test_low_scores_have_a_logsumexp_beyond_float32_and_the_same_pattern() -> None:
    for d_head in (1, 16, 32, 64):
        case = make_case(SIZE._replace(d_head=d_head), "bfloat16", CPU, masked=False, causal=False, low=True)
        scores = case.q.double() @ case.k.double().mT * d_head**-0.5
        assert scores.logsumexp(-1).max() < -math.log(torch.finfo(torch.float32).max)
        rest = case.q[..., 1:].double() @ case.k[..., 1:].double().mT * d_head**-0.5
        assert torch.allclose(scores.softmax(-1), rest.softmax(-1), atol=1e-12)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("spoil", ["small", "nan", "one position"])
def test_a_wrong_output_or_gradient_is_seen(part: int, spoil: str) -> None:
    case = make_case(SIZE, "float32", CPU, masked=True, causal=False, low=True)
    found = list(computed(case, SDPBackend.MATH))
    assert error(case, tuple(found)) < TOLERANCE["float32"]
    if spoil == "small":
        found[part] = found[part] * 1.01
    else:
        found[part] = found[part].clone()
        found[part][1, 2, 5, 3] += torch.nan if spoil == "nan" else found[part].abs().max()
    assert error(case, tuple(found)) > TOLERANCE["float32"]


def forgets_the_mask(q, k, v, attn_mask=None, **rest):
    return PLAIN(q, k, v, **rest)


def not_a_number_where_scores_are_low(q, k, v, attn_mask=None, **rest):
    """Does what was seen of cuDNN: the gradient of q, at some lengths, under a mask."""
    if attn_mask is not None and q.shape[2] % 128 == 64:
        low = (q.detach() @ k.detach().mT * q.shape[-1] ** -0.5).amax(-1, keepdim=True) < -88.7
        q = q * 1
        q.register_hook(lambda gradient: torch.where(low, torch.nan, gradient))
    return PLAIN(q, k, v, attn_mask=attn_mask, **rest)


PLAIN = F.scaled_dot_product_attention


@pytest.mark.parametrize("kernel", [forgets_the_mask, not_a_number_where_scores_are_low])
def test_a_kernel_that_is_wrong_under_a_mask_is_not_pinned(kernel, monkeypatch) -> None:
    attention_kernels.deviation.cache_clear()
    shape = Shape(sequences=3, heads=2, length=150, d_head=8, precision="float32", masked=True, causal=False)
    assert choose_attention(Engine(), shape, CPU).kernel == "flash"
    attention_kernels.deviation.cache_clear()
    monkeypatch.setattr(attention_check.F, "scaled_dot_product_attention", kernel)
    choice = choose_attention(Engine(), shape, CPU)
    assert choice.kernel == "math"
    assert choice.deviations["flash"] > TOLERANCE["float32"]
    with pytest.raises(ConfigError, match="gives wrong numbers"):
        choose_attention(Engine(attention="flash"), shape, CPU)
    attention_kernels.deviation.cache_clear()
