"""Foreign torch modules: what is seen of their attention is what they compute, by their own kernels."""

import numpy as np
import pytest
import torch
from torch import nn

import attnprobe as ap
from attnprobe.capture.watching import watch
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.probes import decomposition, interventions, proximity
from attnprobe.probes.score_gradients import trace
from attnprobe.scores.call import AttentionCall
from tests.capture.foreign import (
    HEADS,
    KINDS,
    LENGTH,
    LOSSES,
    WIDTH,
    Fused,
    N,
    WithWeights,
    calls,
    encoder,
    inputs,
)  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_are_the_same_bits_watched_or_not(kind: str, gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = KINDS[kind]().eval(), inputs()
    subject, outputs = watch(model, [x]), []
    model.register_forward_hook(lambda module, args, output: outputs.append(output))
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.set_grad_enabled(gradients):
        subject.run(np.arange(N), observe=lambda call: None)
        torch.backends.mha.set_fastpath_enabled(False)  # another kernel, which shows nothing
        try:
            expected = model(x)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
    assert torch.equal(outputs[0], expected)
    assert len(outputs) == 2


@pytest.mark.parametrize("kind", [*KINDS])
def test_pattern_times_values_is_the_output_and_the_mode_is_left_alone(kind: str) -> None:
    model = KINDS[kind]()
    assert model.training
    for call in calls(model):
        assert torch.allclose(call.pattern() @ call.values, call.output, atol=1e-6)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["fused", "written", "one axis", "grouped", "biased"])
def test_scores_are_those_of_dense_float64(kind: str) -> None:
    model = KINDS[kind]()
    (call,) = calls(model)
    q, k, _ = (part.double() for part in model.parts(inputs()))
    scale = {"fused": 0.7, "written": 0.7, "one axis": 0.3}.get(kind, (WIDTH // HEADS) ** -0.5)
    wanted = q @ (k[:, :1] if kind == "grouped" else k).mT * scale
    shown = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    if kind == "biased":
        shown = (torch.arange(LENGTH) != 2).expand(LENGTH, LENGTH)
        wanted = wanted + model.mask().double()
        assert torch.equal(call.visibility.valid, shown[:1].expand(N, -1))
    if kind in ("fused", "written"):
        shown = shown.tril()
        assert call.visibility.causal
        assert call.visibility.dense is None
    assert call.k.shape[1] == (1 if kind not in ("fused", "biased") else HEADS)
    found = call.scores().double()[..., shown]
    assert torch.allclose(found, wanted[..., shown], atol=1e-6)


def test_multi_head_attention_shows_queries_and_keys_with_weights_and_without() -> None:
    for model in (WithWeights(), encoder()):
        first, attention = calls(model)[0], next(m for m in model.modules() if isinstance(m, nn.MultiheadAttention))
        weight, bias = attention.in_proj_weight.double(), attention.in_proj_bias.double()
        q, k, _ = (inputs().double() @ weight.T + bias).unflatten(-1, (3, HEADS, -1)).transpose(1, 3).unbind(2)
        assert torch.allclose(first.scores().double(), q @ k.mT * (WIDTH // HEADS) ** -0.5, atol=1e-6)
        assert first.projected
        assert first.name.endswith(("attention", "self_attn"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "biased"])  # that hides a key in the middle
def test_gradients_along_scores_agree_between_offsets_and_outputs(kind: str) -> None:
    """Two independent ways: a zero that is added to the scores, and the formula for a softmax from its output."""
    subject, found = watch(KINDS[kind]().requires_grad_(False), [inputs()], losses=LOSSES), []
    for method in ("dense", "streamed"):
        traced = trace(subject, np.arange(N), "label", method=method)
        found.append([block.values for block in traced.gradients(LENGTH)])
    assert len(found[0]) == len(subject.layers)
    for dense, streamed in zip(*found, strict=True):
        assert float(dense.abs().max()) > 1e-3
        assert torch.allclose(dense, streamed, atol=1e-5 * float(dense.abs().max()))


def test_padding_is_seen_in_the_mask() -> None:
    model, x = encoder(), inputs()
    valid = torch.arange(LENGTH) < torch.tensor([7, 3, 5, 7, 2])[:, None]
    subject = watch(model, [{"src": x, "src_key_padding_mask": ~valid}], valid=valid)
    found: list[AttentionCall] = []
    subject.run(np.arange(1, 4), observe=found.append)
    assert torch.equal(found[0].visibility.valid, valid[1:4])
    assert torch.equal(subject.real(np.arange(1, 4)), valid[1:4])
    rows = proximity.measure(subject, n=N, null="none", radius=1).rows
    assert np.isfinite([row.interval.estimate for row in rows]).all()


def test_only_takes_the_modules_that_were_asked_for() -> None:
    subject = watch(encoder(), [inputs()], only="layers.1.*")
    assert [(layer.name, layer.heads) for layer in subject.layers] == [("layers.1.self_attn", HEADS)]
    assert subject.capture.calls == 1
    with pytest.raises(NotApplicableError, match="no attention was seen"):
        watch(encoder(), [inputs()], only="decoder.*")


def test_grids_and_leading_tokens() -> None:
    subject = watch(encoder(), [inputs()], grid=(2, 3))
    assert (subject.space.layout.shape, subject.space.leading) == ((2, 3), 1)
    with pytest.raises(ConfigError, match="cannot hold"):
        watch(encoder(), [inputs()], grid=(3, 3))


def test_redrawn_changes_queries_and_keys_alone_and_leaves_the_model_as_it_was() -> None:
    model = encoder()
    before = {name: p.clone() for name, p in model.named_parameters()}
    subject = watch(model, [inputs()], initialise=lambda module: module._reset_parameters())
    first, second, again = (subject.redrawn(seed) for seed in (0, 1, 0))
    parts = ("bias", "weight")
    assert sorted(first.weights) == [f"layers.{i}.self_attn.in_proj_{part}" for i in (0, 1) for part in parts]
    for name, drawn in first.weights.items():
        moved = (drawn != before[name]).flatten(1).any(1) if drawn.dim() > 1 else drawn != before[name]
        assert not moved[2 * WIDTH :].any(), "values stay"
        if name.endswith("weight"):
            assert moved[: 2 * WIDTH].all()
            assert not torch.equal(drawn, second.weights[name])
        assert torch.equal(drawn, again.weights[name])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    found: list[AttentionCall] = []
    first.run(np.arange(N), observe=found.append)
    assert not torch.allclose(found[0].q, calls(model)[0].q)
    assert torch.equal(found[0].v, calls(model)[0].v)


def test_parts_of_the_scores_sum_to_all() -> None:
    shares = decomposition.measure(watch(Fused(), [inputs()])).rows
    assert sum(row.interval.estimate for row in shares if row.head == 1) == pytest.approx(1)


def test_proximity_of_the_python_face_is_that_of_arrays_of_the_same_queries_and_keys() -> None:
    (call,) = calls(Fused())
    watched = ap.proximity(ap.watch(Fused(), [inputs()]), n=N, null="keys", draws=19).to_frame()
    arrays = ap.arrays(call.q.detach(), call.k.detach(), causal=True, scale=0.7)
    given = ap.proximity(arrays, n=N, null="keys", draws=19).to_frame()
    assert watched.estimate.to_numpy() == pytest.approx(given.estimate.to_numpy(), rel=1e-5)


@pytest.mark.parametrize("kind", ["fused", "written", "encoder", "with weights"])
def test_removing_the_profile_of_a_watched_model_changes_its_loss(kind: str) -> None:
    subject = watch(KINDS[kind](), [inputs()], losses=LOSSES)
    rows = interventions.dose_response(subject, controls=2, doses=(-1.0, 0.0)).rows
    change = [r.interval.estimate for r in rows if r.kind == "own" and r.quantity == "loss.change" and r.dose == -1]
    assert abs(change[0]) > 1e-6
