"""Losses of language models per text, their gradients along the scores, and other orders and weights of the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

import transformers

from attnprobe.capture.hugging_face.opening import Source, open_source
from attnprobe.capture.watching.watched import Watched
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes.score_gradients import trace
from attnprobe.scores.call import AttentionCall
from tests.capture.hugging_face_folders import write_model, write_table

pytestmark = pytest.mark.hf
CPU, LENGTH, N = torch.device("cpu"), 11, 7
SAMPLES = np.arange(N)


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def source(kind: str, folder: Path, **changes: object) -> Source:
    write_model(kind, folder / kind)
    table = write_table(folder / "t.csv")
    given = {"model": str(folder / kind), "text": table, "label_column": "answer", "max_length": LENGTH, "limit": 20}
    return Source(**given | changes)


def opened(kind: str, folder: Path) -> Watched:
    return open_source(source(kind, folder), CPU, needs="both", seed=3)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_next_tokens_cost_what_transformers_says_text_by_text(kind: str, tmp_path: Path) -> None:
    subject = opened(kind, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / kind).eval()
    with torch.no_grad():
        found = subject.loss("reconstruction", SAMPLES)
        for sample in SAMPLES:
            ids = subject.inputs.kwargs["input_ids"][sample : sample + 1][:, subject.inputs.valid[sample]]
            assert float(model(input_ids=ids, labels=ids).loss) == pytest.approx(float(found.value[sample]), rel=1e-5)


def test_hidden_tokens_cost_what_bert_says_without_the_probe(tmp_path: Path) -> None:
    subject = opened("bert", tmp_path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "bert").eval()
    batch = subject.losses["reconstruction"].prepare(subject.inputs.take(SAMPLES), SAMPLES)
    ids, hidden = batch.targets
    assert hidden.any(1).all()
    assert not (hidden & ~subject.inputs.valid[:N]).any(), "neither padding nor special tokens"
    assert ((batch.kwargs["input_ids"] == 4) == hidden).all()  # the mask token
    with torch.no_grad():
        logits = model(input_ids=batch.kwargs["input_ids"], attention_mask=batch.kwargs["attention_mask"]).logits
        found = subject.loss("reconstruction", SAMPLES)
        alone = subject.loss("reconstruction", SAMPLES[4:5])
    for sample in SAMPLES:
        wanted = F.cross_entropy(logits[sample, hidden[sample]], ids[sample, hidden[sample]])
        assert float(found.value[sample]) == pytest.approx(float(wanted), rel=1e-5)
    assert float(alone.value[0]) == pytest.approx(float(found.value[4]), rel=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("loss", ["label", "reconstruction"])
def test_gradients_along_scores_agree_between_offsets_and_outputs(kind: str, loss: str, tmp_path: Path) -> None:
    subject, found = opened(kind, tmp_path), []
    for method in ("dense", "streamed"):
        traced = trace(subject, SAMPLES, loss, method=method)
        found.append([block.values for block in traced.gradients(LENGTH)])
    assert len(found[0]) == 2
    for dense, streamed in zip(*found, strict=True):
        assert float(dense.abs().max()) > 1e-6
        assert torch.allclose(dense, streamed, atol=2e-5 * float(dense.abs().max()))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_another_order_is_that_of_the_texts_own_tokens(kind: str, tmp_path: Path) -> None:
    subject = opened(kind, tmp_path)
    ids, own = subject.inputs.kwargs["input_ids"], subject.inputs.valid
    order = np.random.default_rng(0).permutation(subject.space.length)
    moved = subject.reordered(order)
    changed = moved.inputs.kwargs["input_ids"]
    assert torch.equal(changed[~own], ids[~own])
    for row in range(len(ids)):
        body = ids[row, own[row]].tolist()
        named = [place for place in order if place < len(body)]
        assert changed[row, own[row]].tolist() == [body[place] for place in named]
    with torch.no_grad():
        first, other = (s.loss("reconstruction", SAMPLES).value for s in (subject, moved))
    assert not torch.allclose(first, other)


def test_queries_and_keys_of_another_checkpoint(tmp_path: Path) -> None:
    subject, donor = opened("gpt2", tmp_path / "a"), open_source(
        source("gpt2", tmp_path / "b"), CPU, needs="both"
    )  # fmt: skip
    donor.model.load_state_dict({name: p * 1.5 for name, p in donor.model.state_dict().items()})
    calls: dict[str, list[AttentionCall]] = {}
    for name, one in (("own", subject), ("other", donor), ("swapped", subject.with_projections_of(donor, layers=[0]))):
        one.run(SAMPLES, observe=calls.setdefault(name, []).append)
    first = subject.model.transformer.h[0].attn.c_attn
    q, k, v = ((calls["swapped"][0].q), calls["swapped"][0].k, calls["swapped"][0].v)
    assert torch.allclose(v, calls["own"][0].v)
    for mine, own, weight in ((q, calls["own"][0].q, 0), (k, calls["own"][0].k, 1)):
        bias = first.bias.unflatten(0, (3, 2, 1, 8))[weight]
        assert torch.allclose(mine - 1.5 * bias, 1.5 * (own - bias), atol=1e-5)
    swapped = subject.with_projections_of(donor).weights
    assert sorted(swapped) == sorted(
        f"transformer.h.{i}.attn.c_attn.{part}" for i in (0, 1) for part in ("weight", "bias")
    )


def test_double_is_the_same_model_in_float64(tmp_path: Path) -> None:
    subject = opened("llama", tmp_path)
    exact = subject.double()
    with torch.no_grad():
        one, other = (s.loss("label", SAMPLES).value for s in (subject, exact))
    assert other.dtype == torch.float64
    assert torch.allclose(one.double(), other, atol=1e-5)
    assert next(subject.model.parameters()).dtype == torch.float32
