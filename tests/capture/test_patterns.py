"""Attention as viewers take it: the model's own eager weights, made for one sequence when they are asked for."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

import attnprobe as ap
from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError, NotApplicableError
from tests.capture.foreign import HEADS, LENGTH, Biased, Fused, encoder, inputs

WORDS = [f"word {i}" for i in range(LENGTH)]


def test_patterns_of_a_torch_module_are_its_weights() -> None:
    model = encoder().eval()
    x, wanted = inputs(), []
    subject = ap.watch(model, [x])
    with torch.no_grad():
        for layer in model.layers:
            wanted.append(layer.self_attn(x[2:3], x[2:3], x[2:3], average_attn_weights=False)[1])
            x = layer(x)
    found = subject.to_bertviz(2)
    assert len(found) == 2
    for one, weights in zip(found, wanted, strict=True):
        assert one.shape == (1, HEADS, LENGTH, LENGTH)
        assert torch.allclose(one, weights, atol=1e-6)
    assert torch.equal(subject.to_circuitsvis(2, layer=1), found[1][0])
    assert [layer.shape for layer in subject.to_bertviz(2, layers=[1])] == [found[1].shape]


@pytest.mark.parametrize("make", [Fused, Biased])
def test_rows_sum_to_one_and_hidden_keys_are_zero(make: type) -> None:
    pattern = ap.watch(make(), [inputs()]).to_bertviz(0)[0]
    assert torch.allclose(pattern.sum(-1), torch.ones(1, HEADS, LENGTH), atol=1e-6)
    hidden = torch.ones(LENGTH, LENGTH).triu(1).bool() if make is Fused else (torch.arange(LENGTH) == 2).expand(7, 7)
    assert float(pattern[..., hidden].abs().max()) == 0


def test_padding_looks_at_nothing_and_is_not_looked_at() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 3, 2, 5, 4))
    valid = np.arange(5) >= np.array([0, 2, 1])[:, None]  # on the left: causal queries there see no key at all
    subject = ap.arrays(q, k, causal=True, valid=valid)
    pattern = subject.to_bertviz(1)[0]
    assert float(pattern[..., :2, :].abs().max()) == float(pattern[..., :2].abs().max()) == 0
    assert torch.allclose(pattern[..., 2:, :].sum(-1), torch.ones(1, 2, 3, dtype=torch.float64))


def test_what_cannot_be_shown_is_refused() -> None:
    subject = ap.watch(encoder(), [inputs()])
    for show in (lambda: subject.to_bertviz(5), lambda: subject.to_circuitsvis(-1, layer=0)):
        with pytest.raises(ConfigError, match="no sample"):
            show()
    with pytest.raises(ConfigError, match="no layer 2"):
        subject.to_circuitsvis(0, layer=2)
    subject.per_sample = 2
    with pytest.raises(NotApplicableError, match="pairs"):
        subject.to_bertviz(0)


def bert_and_llama(padded: bool) -> list[tuple[Subject, list[Tensor], int]]:
    """Subjects, the eager weights of their third sequence, and how many tokens that has."""
    pytest.importorskip("transformers")
    from tests.capture.test_watching_hugging_face import batch, make

    found = []
    for family in ("bert", "llama"):
        given = batch(family, padded=padded)
        with torch.no_grad():
            weights = make(family, "eager")(**given, output_attentions=True).attentions
        subject = ap.watch(make(family, "sdpa"), [given])
        found.append((subject, [layer[2:3] for layer in weights], int(given["attention_mask"][2].sum())))
    return found


@pytest.mark.hf
@pytest.mark.parametrize("padded", [False, True])
def test_they_are_the_eager_weights_of_bert_and_llama(padded: bool) -> None:
    for subject, weights, tokens in bert_and_llama(padded):
        for one, wanted in zip(subject.to_bertviz(2), weights, strict=True):
            assert one.shape == wanted.shape
            assert torch.allclose(one, wanted, atol=2e-6)
            assert torch.allclose(one.sum(-1), torch.ones(()), atol=1e-5)
            assert not one[..., tokens:].any()


@pytest.mark.hf
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its own files open
def test_bertviz_takes_them() -> None:
    bertviz = pytest.importorskip("bertviz")
    for subject, _, tokens in bert_and_llama(False):
        words, attention = [f"word{i}" for i in range(tokens)], subject.to_bertviz(2)
        for view in (bertviz.head_view, bertviz.model_view):
            page = view(attention, words, html_action="return").data
            assert words[-1] in page
            assert all(json.dumps(layer[0].tolist()) in page for layer in attention)


def test_circuitsvis_takes_them() -> None:
    circuitsvis = pytest.importorskip("circuitsvis")
    pattern = ap.watch(encoder(), [inputs()]).to_circuitsvis(1, layer=0)
    for page in (
        circuitsvis.attention.attention_heads(pattern, WORDS),
        circuitsvis.attention.attention_patterns(WORDS, pattern),
    ):
        assert WORDS[-1] in str(page)
        assert json.dumps(pattern.tolist()) in str(page)
