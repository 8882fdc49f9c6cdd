"""The seam between models and probes: one sampling rule, streams of their own, and models that are not ours."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attnprobe.probes
from attnprobe.capture import Loss, Subject, ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import alignment, blindness, decomposition, interventions, proximity
from attnprobe.probes.alignment.change import change_of_scores
from attnprobe.probes.trajectory import Trajectory
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.directions import Direction, ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.scores.named import named_directions
from attnprobe.scores.visibility import Visibility
from attnprobe.streams import stream
from attnprobe.tasks import Spec, Split

N, LENGTH = 23, 7


class Foreign(Subject):
    """A model of another kind: embeddings and attention written by hand, layers of 3 and of 2 heads."""

    def __init__(self, heads: tuple[int, ...] = (3, 2)) -> None:
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, 11, 6, generator=g, dtype=torch.float64)
        self.weights = [torch.randn(3, h, 6, 4, generator=g, dtype=torch.float64) for h in heads]
        self.readout = torch.randn(6, 2, generator=g, dtype=torch.float64)
        self.space, self.samples = ScoreSpace(layout=Layout(shape=(11,), causal=True)), N
        self.labels = np.arange(N) % 2

    def run(self, samples, *, observe=None, score_offsets=None) -> None:
        self.features(samples, observe, score_offsets or {})

    def features(self, samples, observe, score_offsets) -> Tensor:
        x = self.x[torch.from_numpy(samples)]
        hidden = torch.ones(11, 11, dtype=torch.bool).triu(1)
        for layer, w in enumerate(self.weights):
            q, k, v = (x[:, None] @ part for part in w)
            scores = (q @ k.mT * 0.3 + score_offsets.get(layer, 0.0)).masked_fill(hidden, -torch.inf)
            out = scores.softmax(-1) @ v
            if observe is not None:
                seen = Visibility(causal=True)
                observe(AttentionCall(layer=layer, q=q, k=k, v=v, output=out, scale=0.3, visibility=seen))
            x = x + torch.tanh(out.sum(1) @ w[2].mean(0).mT)
        return x

    def loss(self, name, samples, *, observe=None, score_offsets=None) -> Loss:
        self.x.requires_grad_(torch.is_grad_enabled())
        x, labels = self.features(samples, observe, score_offsets or {}), torch.from_numpy(self.labels[samples])
        if name == "label":
            return Loss(targets=x.mean(1) @ self.readout, of=lambda t: F.cross_entropy(t, labels, reduction="none"))
        return Loss(targets=x.square().mean((1, 2))[:, None], of=lambda t: t[:, 0])


def dense(subject: Foreign) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of every layer q, k and the scores, centred over the visible keys, zero elsewhere."""
    calls: list[AttentionCall] = []
    subject.run(np.arange(N), observe=calls.append)
    return [(call.q, call.k, centred(call.scores())) for call in calls]


def centred(scores: Tensor) -> Tensor:
    seen = torch.ones(11, 11, dtype=torch.float64).tril()
    return (scores - (scores * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)) * seen


def test_proximity_of_a_foreign_model_with_ragged_heads_is_that_of_dense_matrices() -> None:
    subject = Foreign()
    result = proximity.measure(subject)
    assert [layer.heads for layer in subject.layers] == [3, 2]
    found = {(r.layer, r.head): r.interval.estimate for r in result.rows if r.quantity == "proximity_bias"}
    assert list(found) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    offset = torch.arange(11) - torch.arange(11)[:, None]
    near, far = ((offset <= 0) & (offset.abs() <= 3)).double(), (offset < -3).double()
    for layer, (_, _, scores) in enumerate(dense(subject)):
        gap = (scores * near).sum((0, 2, 3)) / (N * near.sum()) - (scores * far).sum((0, 2, 3)) / (N * far.sum())
        bias = gap / (scores.square().sum((0, 2, 3)) / (N * 66)).sqrt()
        for head, wanted in enumerate(bias.tolist()):
            assert found[layer, head] == pytest.approx(wanted, rel=1e-10)
    for name, axes in {"profile_score_estimate": (2, 3, 21), "sd": (2, 3)}.items():
        array = result.arrays()[name]
        assert array.shape == axes
        assert np.isnan(array[1, 2]).all()  # there is no such head
        assert np.isfinite(array[1, 1]).any()
    pooled = proximity.pool([result, result])
    biases = [value for place, value in found.items() if place[0] == 1]
    wanted = {"proximity_bias.mean": np.mean(biases), "proximity_bias.max": np.max(biases)}
    assert {r.quantity: r.interval.estimate for r in pooled if r.layer == 1 and "bias" in r.quantity} == wanted


def test_parts_of_the_scores_of_a_foreign_model_are_those_of_dense_matrices() -> None:
    subject = Foreign()
    rows = decomposition.measure(subject).rows
    found = {(r.layer, r.head, r.quantity): r.interval.estimate for r in rows}
    assert len(found) == 5 * 3
    groups = torch.arange(N) % 10  # the jackknife leaves out one after the other
    sizes = groups.bincount().double()[:, None, None] / N

    def shares(q: Tensor, k: Tensor) -> Tensor:
        """(part, head), plain."""
        a, b = (x.mean(0, keepdim=True).expand_as(x) for x in (q, k))
        whole = centred(q @ k.mT)
        parts = (a @ b.mT, (q - a) @ (k - b).mT)
        return torch.stack([(centred(part) * whole).sum((0, 2, 3)) / whole.square().sum((0, 2, 3)) for part in parts])

    for layer, (q, k, _) in enumerate(dense(subject)):
        without = torch.stack([shares(q[groups != g], k[groups != g]) for g in range(10)])
        wanted = 10 * shares(q, k) - ((1 - sizes) * without).sum(0)
        for i, part in enumerate(("position", "content")):
            for head, share in enumerate(wanted[i].tolist()):
                assert found[layer, head, f"{part}_share"] == pytest.approx(share, rel=1e-9)


def test_what_a_foreign_model_does_not_have_is_refused_or_left_out() -> None:
    ragged, even = Foreign(), Foreign(heads=(2, 2))
    for measure in (alignment.measure, interventions.dose_response):
        with pytest.raises(NotApplicableError, match="same number of heads"):
            measure(ragged)
    rows = alignment.measure(even, shuffles=19, null="phase").rows
    assert {r.quantity for r in rows if r.quantity.startswith("cosine")} == {
        f"cosine.{where}{raw}" for where in ("scores", "offsets") for raw in ("", ".raw", ".null")
    }
    assert {r.kind for r in interventions.dose_response(even, controls=2).rows} == {
        "own", "shuffled", "own - shuffled"
    }  # fmt: skip
    with pytest.raises(NotApplicableError, match="float64"):
        blindness.measure(even)
    with pytest.raises(NotApplicableError, match="W_Q and W_K"):
        interventions.swap_response(even, even)


@pytest.mark.parametrize("rules", [{"window": 3}, {"causal": False}, {"dense": torch.ones(11, 11).tril().bool()}])
def test_layers_with_other_rules_of_who_sees_whom_are_refused(rules: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, run = Foreign(heads=(2, 2)), Foreign.features

    def features(self, samples, observe, score_offsets) -> Tensor:
        def relay(call: AttentionCall) -> None:
            seen = dataclasses.replace(call.visibility, **rules)
            if observe is not None:
                observe(dataclasses.replace(call, visibility=seen))

        return run(self, samples, relay, score_offsets)

    monkeypatch.setattr(Foreign, "features", features)
    for measure in (proximity.measure, decomposition.measure, alignment.measure, interventions.dose_response):
        with pytest.raises(NotApplicableError, match="layer 0 lets positions see others"):
            measure(subject)


Measurement = Callable[[Subject], object]
PROBES: dict[str, Measurement] = {
    "proximity": lambda s: proximity.measure(s, n=9, seed=5, null="keys", draws=19),
    "decompose": lambda s: decomposition.measure(s, n=9, seed=5),
    "alignment": lambda s: alignment.measure(s, n=9, seed=5, shuffles=19, orders=19, groups=3),
    "intervene": lambda s: interventions.dose_response(s, n=9, seed=5, controls=2),
    "certify": lambda s: blindness.measure(s, n=9, seed=5, shuffles=19),
    "change": lambda s: change_of_scores(s, s, n=9, seed=5),
    "swap": lambda s: interventions.swap_response(s, s, n=9, seed=5),
    "trajectory": lambda s: Trajectory(sequences=9, seed=5).measure(s),
}


def make_ours() -> ours.Ours:
    model = make_model(
        TransformerConfig(d_model=8, layers=2, heads=2, d_mlp=6), Spec(length=LENGTH, classes=3), "values", seed=0
    )
    inputs = torch.randn(N, LENGTH, 1, generator=torch.Generator().manual_seed(0))
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(N) % 3))


@pytest.mark.parametrize("name", [*PROBES])
def test_all_probes_run_the_same_samples_for_the_same_seed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, ran = make_ours(), set()
    assert subject.layers  # looks at sample 0, whatever is drawn
    batch = ours.Ours._batch
    monkeypatch.setattr(ours.Ours, "_batch", lambda self, samples: ran.update(samples.tolist()) or batch(self, samples))
    result = PROBES[name](subject)
    wanted = np.sort(stream(5, "samples").choice(N, 9, replace=False)).tolist()
    assert sorted(ran - {0}) == sorted(set(wanted) - {0})  # a copy or an exchanged model looks at sample 0 again
    if hasattr(result, "samples"):
        assert result.samples.tolist() == wanted


def test_another_direction_or_control_changes_no_other_row() -> None:
    subject = make_ours()
    few = named_directions(subject.space, seed=5)
    more = [*named_directions(subject.space, controls=5, seed=5), Direction(name="x", profile=torch.arange(13.0))]
    first, second = (
        {(r.quantity, r.layer, r.head, r.direction): r for r in alignment.measure(subject, directions=d, n=15).rows}
        for d in (few, more)
    )
    assert len(second) > len(first)
    for key, row in first.items():
        other = second[key]
        assert other.p_value == row.p_value
        for bound in ("estimate", "low", "high"):
            wanted = getattr(row.interval, bound)
            assert getattr(other.interval, bound) == pytest.approx(wanted, rel=1e-4, abs=1e-7, nan_ok=True), key
    one, three = (interventions.dose_response(subject, controls=c, n=15) for c in (2, 3))
    assert one.select("loss", "own") == three.select("loss", "own")
    assert [r.interval.estimate for r in one.select("loss", "shuffled")] != [
        r.interval.estimate for r in three.select("loss", "shuffled")
    ]


def test_streams_are_the_same_at_every_call_and_different_by_name_and_seed() -> None:
    draws = [stream(*key).integers(2**62) for key in ((0, "a"), (0, "a"), (0, "b"), (1, "a"), (0, "a", "b"))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4


@pytest.mark.parametrize("name", [*PROBES])
def test_a_model_without_attention_is_refused(name: str) -> None:
    subject = make_ours()
    subject.model.blocks = torch.nn.ModuleList()
    if name == "trajectory":  # a run goes on without it
        assert PROBES[name](subject) == []
        return
    with pytest.raises(NotApplicableError, match="no attention layer"):
        PROBES[name](subject)


@pytest.mark.parametrize("name", ["proximity", "alignment", "intervene", "certify"])
def test_a_sequence_of_one_position_has_no_scores_to_speak_of(name: str) -> None:
    model = make_model(TransformerConfig(d_model=4, heads=1, d_mlp=4), Spec(length=1, classes=2), "values", seed=0)
    subject = ours.of(model, Split(inputs=torch.zeros(9, 1, 1), labels=torch.arange(9) % 2))
    with pytest.raises(NotApplicableError, match="two positions"):
        PROBES[name](subject)


def test_probes_name_nothing_of_our_model() -> None:
    for path in Path(attnprobe.probes.__path__[0]).rglob("*.py"):
        code = [line for line in path.read_text().splitlines() if line != "from attnprobe.config import require"]
        found = re.findall(r"Transformer|\.config\b|\.spec\b|\.blocks\b", "\n".join(code))
        assert not found, f"{path}: {found}"
