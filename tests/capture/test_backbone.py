"""Probes of our models around a Hugging Face encoder: what is watched is what its own kernels do, on our data."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from attnprobe.capture import ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.hugging_face.settings import BackboneSettings, as_text
from attnprobe.models.parameter_sets import sets_of
from attnprobe.probes.proximity import probe as proximity
from attnprobe.tasks import Spec, Split
from tests.models.hugging_face.small import CAUSAL, KINDS, description

pytestmark = pytest.mark.hf

SAMPLES, LENGTH = 7, 11
SPEC = Spec(length=LENGTH, classes=3, vocabulary=29)


def subject(
    kind: str, *, padded: bool = False, seed: int = 0, spec: Spec = SPEC, readout="mean", shortest: int = 2
) -> ours.Ours:
    backbone = BackboneSettings(architecture=as_text(description(kind)), weights="drawn")
    config = TransformerConfig(backbone=backbone, causal=kind in CAUSAL, readout=readout)
    generator = torch.Generator().manual_seed(seed)
    shape = (SAMPLES, 2, LENGTH) if spec.pairs else (SAMPLES, LENGTH)
    lengths = torch.randint(shortest, LENGTH + 1, shape[:-1], generator=generator) if padded else None
    split = Split(
        inputs=torch.randint(29, shape, generator=generator),
        labels=torch.randint(3, (SAMPLES,), generator=generator),
        lengths=lengths,
    )
    return ours.of(make_model(config, spec, "classes", seed=seed).eval(), split)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_patterns_times_values_are_the_outputs(kind: str, padded: bool) -> None:
    """Of every call, every sequence and every real query, not only of those that are rebuilt on the way."""
    watched, calls = subject(kind, padded=padded), []
    samples = watched.draw(5, seed=1)
    with torch.no_grad():
        watched.run(samples, observe=calls.append)
    assert [call.layer for call in calls] == list(range(watched.model.backbone.config.num_hidden_layers))
    assert watched.capture.calls == len(calls)
    real = watched.real(samples) if padded else torch.ones(5, LENGTH, dtype=torch.bool)
    for call in calls:
        groups = call.q.shape[1] // call.k.shape[1]
        k, v = (t.repeat_interleave(groups, dim=1) for t in (call.k, call.v))
        scores = call.q @ k.mT * call.scale
        seen = call.visibility.whole(LENGTH, scores.device)
        seen = torch.ones_like(scores, dtype=torch.bool) if seen is None else seen.expand_as(scores)
        if kind in CAUSAL:
            assert not seen.triu(1).any()
        rebuilt = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num() @ v
        assert ((rebuilt - call.output).abs().amax((1, 3)) * real).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_along_the_scores_are_differences_of_losses(kind: str) -> None:
    watched, samples = subject(kind).double(), np.arange(3)
    layer = watched.layers[1]
    offset = torch.zeros(3, layer.heads, LENGTH, LENGTH, dtype=torch.float64, requires_grad=True)
    with watched.differentiable():
        loss = watched.loss("label", samples, score_offsets={1: offset}).value.sum()
        (gradient,) = torch.autograd.grad(loss, offset)
    direction = torch.randn(offset.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-3

    def at(size: float) -> float:
        with torch.no_grad():
            return watched.loss("label", samples, score_offsets={1: size * direction}).value.sum().item()

    measured = (at(step) - at(-step)) / (2 * step)
    assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-3)
    assert abs(measured) > 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_scores_are_drawn_anew_and_exchanged_alone(kind: str) -> None:
    one, donor = subject(kind), subject(kind, seed=1)
    qk = sets_of(one.model)["qk"]
    for other in (one.redrawn(5), one.with_projections_of(donor) if kind != "llama" else one.redrawn(6)):
        before, after = one.model.state_dict(), other.model.state_dict()
        changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
        assert {name for name in qk if name.endswith("weight")} <= changed <= qk
        assert type(other) is type(one)
    if kind == "llama":  # two heads share a key
        with pytest.raises(NotApplicableError, match="no W_Q and W_K of one shape"):
            one.with_projections_of(donor)


@pytest.mark.parametrize("kind", ["gpt_neox", "bert"])
def test_pairs_and_leading_tokens_are_watched_too(kind: str) -> None:
    pairs = Spec(length=LENGTH, classes=3, vocabulary=29, pairs=True)
    watched, calls = subject(kind, spec=pairs, padded=True), []
    watched.run(np.arange(4), observe=calls.append)
    assert all(len(call.q) == 8 for call in calls)
    if kind == "bert":
        watched, calls = subject(kind, readout="token", padded=True), []
        watched.run(np.arange(4), observe=calls.append)
        assert watched.space.leading == 1
        assert calls[0].q.shape[2] == LENGTH + 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "modernbert"])
def test_proximity_is_measured_against_weights_drawn_anew(kind: str) -> None:
    found = proximity.measure(subject(kind, padded=True, shortest=6), n=7, null="init", draws=19)
    biases = [row for row in found.rows if row.quantity == "proximity_bias"]
    heads = 4 if kind == "llama" else 2
    assert {(row.layer, row.head) for row in biases} == {(layer, head) for layer in range(2) for head in range(heads)}
    assert all(1 / 20 <= row.p_value <= 1 for row in biases)


def test_windows_are_seen_and_refused_where_all_positions_must_see_each_other() -> None:
    watched, calls = subject("modernbert", padded=True), []
    short = int(watched.split.lengths.argmin())
    watched.run(np.array([short]), observe=calls.append)  # of which padding alone is outside of the window
    assert len(calls) == 3
    with pytest.raises(NotApplicableError, match="layer 1 lets positions see others than all"):
        proximity.measure(watched, n=7, null="init", draws=19)
