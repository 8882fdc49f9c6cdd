"""The three parts against dense matrices: their sum is the scores, their shares are covariances over the variance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.capture.ours import OurRotation, attentions
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import AttentionCall, Transformer, TransformerConfig, make_model
from attnprobe.models.mixers.attention import AttentionSettings
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.models.positions import Rotary
from attnprobe.probes.decomposition import PARTS, Decomposition, measure, split_scores
from attnprobe.tasks import Spec, Split
from tests.probes.seeing import sees

N, LENGTH, HEADS = 6, 13, 3


def make(**settings: object) -> tuple[Transformer, Split]:
    spec = Spec(length=LENGTH, classes=2, vocabulary=11)
    config = TransformerConfig(d_model=12, layers=2, heads=HEADS, d_mlp=8, **settings)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(0)
    inputs = torch.randint(1, 11, (N, LENGTH), generator=g)
    lengths = torch.tensor([LENGTH, 5, 9, LENGTH, 7, 11])
    return make_model(config, spec, "classes", seed=1).double(), Split(
        inputs=inputs, labels=torch.zeros(N, dtype=torch.int64), lengths=lengths
    )


def run(model: Transformer, split: Split, **settings: object) -> Decomposition:
    return measure(ours.of(model, split), **settings)  # type: ignore[arg-type]


def shares(result: Decomposition) -> Tensor:
    """(part, layer, head)"""
    values = [[r.interval.estimate for r in result.rows if r.quantity == f"{part}_share"] for part in PARTS]
    return torch.tensor(values, dtype=torch.float64).view(3, 2, HEADS)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 2**31))
def test_parts_sum_to_the_scores(length: int, d_head: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(3, 2, length, d_head, generator=g, dtype=torch.float64) for _ in range(2))
    parts = split_scores(q, k, q.mean(0), k.mean((0, 2), keepdim=True))
    total = sum(a @ b.mT for a, b in parts.values())
    torch.testing.assert_close(total, q @ k.mT, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("token", "causal"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rotary"])
def test_shares_equal_dense_covariances(positions: str, token: bool, causal: bool, window: int | None) -> None:
    mixer = AttentionSettings() if window is None else BlockLocalSettings(window=window, sliding=token)
    model, split = make(positions=positions, causal=causal, readout="token" if token else "mean", mixer=mixer)
    result = run(model, split)
    batch = split.batch(torch.arange(N))
    calls: list[AttentionCall] = []
    with torch.no_grad():
        model(batch.inputs, valid=batch.valid, observe=calls.append)
    assert batch.valid is not None
    valid, found = batch.valid[:, None, :, None].double(), shares(result)
    visible = (valid @ valid.mT).bool()
    layout = ours.of(model, split).space.layout
    assert (layout.reach is None) == (window is None)
    visible = visible & torch.tensor([[sees(layout, i, j) for j in range(LENGTH)] for i in range(LENGTH)])
    every = list(range(N))
    for layer, call in enumerate(calls):
        rotary = attentions(model)[layer].rotary

        def alone(kept: list[int], call=call, rotary=rotary) -> Tensor:
            q, k = (x[kept] for x in (call.q, call.k))
            return dense_shares(q, k, valid[kept], visible[kept], rotary, int(token))

        without = torch.stack([alone([i for i in every if i != out]) for out in every])
        wanted = N * alone(every) - (N - 1) * without.mean(0)
        torch.testing.assert_close(found[:, layer], wanted, rtol=1e-9, atol=1e-9)
        if positions == "rotary":
            assert result.frequency_share is not None
            q, k = (x[..., int(token) :, :] for x in (call.q, call.k))
            for f in range(2):
                pair = slice(2 * f, 2 * f + 2)
                wanted = covariance(q[..., pair] @ k[..., pair].mT, centred(q @ k.mT, visible), visible)
                estimate = torch.from_numpy(result.frequency_share.estimate[layer, :, f])
                torch.testing.assert_close(estimate, wanted, rtol=1e-10, atol=1e-10)


def dense_shares(q: Tensor, k: Tensor, valid: Tensor, visible: Tensor, rotary: Rotary | None, token: int) -> Tensor:
    """(part, head) of these sequences alone, with the bias that their own means bring."""
    means = []
    for x in (q, k):
        if rotary is None:
            means.append((x[..., token:, :] * valid).sum(0) / valid.sum(0).clamp(min=1))
        else:
            plain = OurRotation(rotary, 0).back(x)[..., token:, :]
            mean = (plain * valid).sum((0, 2), keepdim=True) / valid.sum()
            means.append(rotary(mean.expand(1, -1, x.shape[-2], -1))[..., token:, :])
    q, k = (x[..., token:, :] for x in (q, k))
    a, b = (m.expand_as(q) for m in means)
    matrices = {"position": a @ b.mT, "content": (q - a) @ (k - b).mT}
    matrices["interaction"] = a @ (k - b).mT + (q - a) @ b.mT
    whole = centred(q @ k.mT, visible)
    return torch.stack([covariance(matrices[part], whole, visible) for part in PARTS])


def centred(scores: Tensor, visible: Tensor) -> Tensor:
    mean = (scores * visible).sum(-1, keepdim=True) / visible.sum(-1, keepdim=True).clamp(min=1)
    return (scores - mean) * visible


def covariance(part: Tensor, whole: Tensor, visible: Tensor) -> Tensor:
    """(head,) with the scores, in units of their variance."""
    return (centred(part, visible) * whole).sum((0, 2, 3)) / whole.square().sum((0, 2, 3))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_shares_sum_to_one(positions: str) -> None:
    result = run(*make(positions=positions))
    torch.testing.assert_close(shares(result).sum(0), torch.ones(2, HEADS, dtype=torch.float64))
    if positions == "rotary":
        assert result.frequency_share is not None
        assert result.frequencies is not None
        np.testing.assert_allclose(result.frequency_share.estimate.sum(-1), 1.0, rtol=1e-10)
        np.testing.assert_allclose(result.frequencies, [1.0, 0.01])
    else:
        assert result.frequency_share is None


def test_equal_sequences_have_no_content() -> None:
    model, split = make()
    same = Split(inputs=split.inputs[:1].repeat(4, 1), labels=split.labels[:4])
    found = shares(run(model, same))
    torch.testing.assert_close(found[0], torch.ones(2, HEADS, dtype=torch.float64))
    torch.testing.assert_close(found[1:], torch.zeros(2, 2, HEADS, dtype=torch.float64))


def test_without_positions_the_first_layer_is_content() -> None:
    """Independent random tokens: no noise of the means passes for position, which it would by 1/n of the content."""
    model, _ = make(positions="none")
    n = 400
    g = torch.Generator().manual_seed(4)
    many = Split(inputs=torch.randint(1, 11, (n, LENGTH), generator=g), labels=torch.zeros(n, dtype=torch.int64))
    found = shares(run(model, many, n=n))
    assert (found[0, 0].abs() < 0.02).all()


def test_rotary_position_part_depends_on_the_offset_only() -> None:
    rotary = Rotary(LENGTH, 4)
    g = torch.Generator().manual_seed(0)
    mean_q, mean_k = (torch.randn(1, HEADS, 1, 4, generator=g).expand(-1, -1, LENGTH, -1) for _ in range(2))
    scores = rotary(mean_q) @ rotary(mean_k).mT
    for offset in range(1 - LENGTH, LENGTH):
        diagonal = scores.diagonal(offset, -2, -1)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal), rtol=1e-4, atol=1e-5)


def test_turning_back_inverts_the_rotation() -> None:
    rotary = Rotary(LENGTH, 6)
    x = torch.randn(2, HEADS, LENGTH, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(OurRotation(rotary, 0).back(rotary(x)), x)
    torch.testing.assert_close(OurRotation(rotary, 2).back(rotary(x)[..., 2:, :]), x[..., 2:, :])
    torch.testing.assert_close(OurRotation(rotary, 2).turn(x[..., 2:, :]), rotary(x)[..., 2:, :])


def test_the_answer_does_not_depend_on_the_memory_limit() -> None:
    model, split = make()
    large, small = run(model, split), run(model, split, memory_limit=100_000)
    for a, b in zip(large.rows, small.rows, strict=True):
        assert a.interval.estimate == pytest.approx(b.interval.estimate, rel=1e-9, abs=1e-12)
        assert math.isfinite(a.interval.low)
        assert a.interval.low <= a.interval.estimate <= a.interval.high


def test_impossible_requests_are_refused() -> None:
    model, split = make()
    with pytest.raises(ConfigError, match="n must be"):
        run(model, split, n=1)
    with pytest.raises(NotApplicableError, match="one sequence"):
        run(model, split.head(1))
    with pytest.raises(ConfigError, match="memory_limit"):
        run(model, split, memory_limit=10)
