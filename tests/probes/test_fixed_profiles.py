"""Probes of a model with a fixed score profile measure the scores that its softmax sees, against dense matrices."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall
from attnprobe.probes import decomposition
from attnprobe.probes.proximity.probe import measure
from attnprobe.probes.score_gradients import trace
from attnprobe.tasks import Split
from tests.models.test_score_profile import make_pair

EVERY = np.arange(7)


def subject_of(name: str) -> Ours:
    model, _, _, split = make_pair(name)
    return ours.of(model, split)


def dense(subject: Ours) -> list[tuple[Tensor, Tensor]]:
    """Of every layer the scores, and the pattern without the class token, (sequence, head, query, key)."""
    calls: list[AttentionCall] = []
    with torch.no_grad():
        subject.run(EVERY, observe=calls.append)
    first = subject.space.leading
    scores = [call.scores()[..., first:, first:] for call in calls]
    return [(s, s.softmax(-1)) for s in scores]


@pytest.mark.parametrize("name", ["line", "grid", "class token"])
def test_proximity_is_that_of_the_whole_scores(name: str) -> None:
    model, _, _, split = make_pair(name)
    subject = ours.of(model, Split(inputs=split.inputs, labels=split.labels))  # without padding
    found = {(r.layer, r.head, r.quantity): r.interval.estimate for r in measure(subject, radius=2.0, null=None).rows}
    shape = subject.space.layout.shape
    place = torch.cartesian_prod(*map(torch.arange, shape)).view(subject.space.length, -1).double()
    distance = torch.cdist(place, place)
    for layer, (scores, pattern) in enumerate(dense(subject)):
        centred = scores - scores.mean(-1, keepdim=True)
        near = distance <= 2
        bias = centred[..., near].mean((0, 2)) - centred[..., ~near].mean((0, 2))
        entropy = -(pattern * pattern.log()).sum(-1).mean((0, 2))
        reach = (pattern * distance).sum(-1).mean((0, 2))
        for head in range(3):
            assert found[layer, head, "entropy"] == pytest.approx(float(entropy[head]), rel=1e-9)
            assert found[layer, head, "distance"] == pytest.approx(float(reach[head]), rel=1e-9)
            if name != "class token":  # self pairs are counted or not by the probe's own rule, tested elsewhere
                sd = centred[:, head].square().mean().sqrt()
                wanted = float(bias[head] / sd)
                assert found[layer, head, "proximity_bias"] == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("name", ["line", "padded", "causal", "grid", "class token"])
def test_streamed_gradients_know_the_profile(name: str) -> None:
    subject = subject_of(name)

    def gradient(method) -> Tensor:
        blocks = list(trace(subject, EVERY, "label", method=method).gradients(4))
        return torch.cat([block.values.flatten() for block in blocks])

    streamed = gradient("streamed")
    assert float((streamed - gradient("dense")).abs().max()) <= 1e-12
    assert float(streamed.abs().max()) > 1e-5


def test_a_fixed_profile_is_position() -> None:
    subject = subject_of("line")
    with torch.no_grad():
        for block in subject.model.blocks:
            block.attention.q.weight.mul_(1e-3)
            block.attention.q.bias.mul_(1e-3)
    for row in decomposition.measure(subject, n=7).rows:
        if row.quantity == "position_share":
            assert row.interval.estimate > 0.999
    with pytest.raises(NotApplicableError, match="rotary positions and a score profile"):
        decomposition.measure(subject_of("class token"), n=7)
