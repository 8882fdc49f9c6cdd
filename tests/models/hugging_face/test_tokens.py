"""Which rows of a foreign table stand for our characters, operators and grey levels."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.models import make_model
from attnprobe.models.config import TransformerConfig
from attnprobe.models.hugging_face.loading import library, read_tokenizer
from attnprobe.models.hugging_face.pretrained import described
from attnprobe.models.hugging_face.settings import BackboneSettings, as_text
from attnprobe.models.hugging_face.tokens import named_rows
from attnprobe.tasks import Spec
from attnprobe.tasks.characters import Vocabulary
from attnprobe.tasks.listops import ListOps
from attnprobe.training.starting import install_backbone
from tests.models.hugging_face.small import description, tokenizer, write

pytestmark = pytest.mark.hf

TEXT = Vocabulary(characters="e a\n\U0001f600")
PIXELS = Spec(length=9, classes=2, levels=256, mean=(100.0,), std=(50.0,))


def backbone(folder: Path, **settings) -> TransformerConfig:
    text = as_text(description("gpt_neox", vocab_size=1500))
    return TransformerConfig(backbone=BackboneSettings(source=str(folder), architecture=text, **settings), causal=True)


def test_characters_operators_and_pixels_are_named_as_published(tmp_path: Path) -> None:
    library()
    tokenizer(tmp_path)
    names = read_tokenizer(str(tmp_path))
    characters = Spec(length=9, classes=2, vocabulary=len(TEXT), symbols=TEXT.symbols())
    rows, unknown = named_rows(characters, names, "it")
    assert [names.decode([row]) for row in rows[1:-1]] == ["<|padding|>", *["<|endoftext|>"] * 2, *"e a\n"]
    assert unknown == ["\U0001f600"]  # four bytes, of which no merge was learned
    assert names.decode([rows[-1]]) == "<|endoftext|>"
    rows, unknown = named_rows(ListOps().outline().spec, names, "it")
    shown = [names.decode([row]) for row in rows[4:]]
    assert sorted(shown) == sorted([*"ABCDX", *map(str, range(10))])
    assert unknown == []
    rows, unknown = named_rows(PIXELS, names, "it")
    assert [names.decode([row]) for row in rows] == [str(level) for level in range(256)]
    assert unknown == []


def test_symbols_name_every_id_of_a_vocabulary() -> None:
    odd = Vocabulary(characters="b\ud800a")  # half of a pair, as no file of UTF-8 holds it
    assert odd.symbols() == ("<mask>", "<pad>", "<unk>", "<eos>", "b", "<unk>", "a")
    assert len(TEXT.symbols()) == len(TEXT)


def test_pixels_without_a_token_are_refused(tmp_path: Path) -> None:
    library()
    tokenizer(tmp_path, numbers=200)
    with pytest.raises(ArtifactError, match="no single token for the grey level 2") as error:
        named_rows(PIXELS, read_tokenizer(str(tmp_path)), "it")
    assert "numbered" in error.value.hint


def test_a_pretrained_model_sees_the_named_rows_and_one_vector_for_what_is_hidden(tmp_path: Path) -> None:
    written = write("gpt_neox", tmp_path, vocab_size=1500)
    tokenizer(tmp_path)
    table, names = written.get_input_embeddings().weight, read_tokenizer(str(tmp_path))
    model = make_model(backbone(tmp_path), PIXELS, "values", seed=0)
    assert install_backbone(model) == []
    inputs, hidden = torch.tensor([[[0.0], [137.0], [255.0]]]), torch.tensor([[False, False, True]])
    seen = model.embedding(inputs, hidden)
    for place, text in enumerate(("0", "137")):
        assert torch.equal(seen[0, place], table[names.convert_tokens_to_ids(text)])
    assert torch.equal(seen[0, 2], model.embedding.mask)
    other = inputs.clone()
    other[0, 2] = 3.0
    assert torch.equal(model(inputs, hidden=hidden), model(other, hidden=hidden))
    assert torch.equal(model.embedding.standardise(inputs), (inputs - 100) / 50)


def test_drawn_weights_take_tokens_by_their_numbers(tmp_path: Path) -> None:
    model = make_model(backbone(tmp_path / "nowhere", weights="drawn"), PIXELS, "values", seed=0)
    assert install_backbone(model) == []
    seen = model.embedding(torch.tensor([[[7.0]]]), None)
    assert torch.equal(seen[0, 0], model.embedding.table.weight[7])


def test_what_cannot_be_fed_is_refused(tmp_path: Path) -> None:
    tokens, values = Spec(length=9, classes=2, vocabulary=5), Spec(length=9, classes=2)
    for spec, settings, message in (
        (tokens, {"inputs": "values"}, "cannot be 'values'"),
        (values, {"inputs": "tokens"}, "cannot be 'tokens'"),
        (Spec(length=9, classes=2, vocabulary=1501), {}, "has 1500 tokens, this task needs 1501"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_model(backbone(tmp_path, weights="drawn", **settings), spec, "values", seed=0)
    with pytest.raises(ConfigError, match="this task does not name its tokens"):
        named_rows(tokens, None, "it")
    with pytest.raises(ConfigError, match="source"):
        BackboneSettings(architecture='{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="JSON"):
        BackboneSettings(architecture="{", weights="drawn")


def test_a_source_that_is_no_longer_what_the_settings_say_is_refused(tmp_path: Path) -> None:
    write("gpt_neox", tmp_path, vocab_size=1500, num_attention_heads=3)
    model = make_model(backbone(tmp_path, tokens="numbered"), PIXELS, "values", seed=0)
    with pytest.raises(ConfigError, match="architecture is not that of"):
        install_backbone(model)


@pytest.mark.parametrize("weights", ["drawn", "pretrained"])
def test_a_source_that_would_not_be_used_is_refused(weights: str, tmp_path: Path) -> None:
    """As where a preset brings an architecture, and a person the source of another model."""
    write("gpt_neox", tmp_path, vocab_size=1500)
    given = json.dumps(description("gpt_neox", num_hidden_layers=1))
    settings = BackboneSettings(source=str(tmp_path), architecture=given, weights=weights)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="architecture is not that of"):
        described(TransformerConfig(backbone=settings))
