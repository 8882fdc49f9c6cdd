"""Folders of Hugging Face models: whole, drawn anew, damaged, of other kinds, or not there."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.models.hugging_face.loading import configuration, library, load, read_config, read_tokenizer
from attnprobe.models.hugging_face.settings import as_text
from tests.models.hugging_face.small import CAUSAL, KINDS, description, write

pytestmark = pytest.mark.hf


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_that_of_the_file(kind: str, tmp_path: Path) -> None:
    written = write(kind, tmp_path)
    assert "model.safetensors" in {path.name for path in tmp_path.iterdir()}
    for head in ("none", "causal" if kind in CAUSAL else "masked"):
        read = load(str(tmp_path), head=head)
        source = dict((written.base_model if head == "none" else written).named_parameters())
        own = dict(read.named_parameters())
        assert not read.training
        assert len(own) > 10
        assert {name for name in source.keys() - own.keys() if "pooler" not in name} == set()
        for name, parameter in own.items():
            assert torch.equal(parameter, source[name])


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_weights_belong_to_the_seed(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (load(str(tmp_path), weights="drawn", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_weights_that_are_not_those_of_the_configuration_are_refused(tmp_path: Path) -> None:
    write("bert", tmp_path)
    edit(tmp_path, num_hidden_layers=3)
    with pytest.raises(ArtifactError, match=r"missing: encoder\.layer\.2.* and 13 more"):
        load(str(tmp_path))
    edit(tmp_path, num_hidden_layers=1)
    with pytest.raises(ArtifactError, match=r"without a place in the model: bert\.encoder\.layer\.1"):
        load(str(tmp_path))
    edit(tmp_path, num_hidden_layers=2, intermediate_size=19)
    with pytest.raises(ArtifactError, match="of another shape: encoder"):
        load(str(tmp_path))


def test_a_missing_tensor_is_not_drawn_instead(tmp_path: Path) -> None:
    write("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"missing: layers\.1\.self_attn\.k_proj\.weight$"):
        load(str(tmp_path))


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    model = write("gpt2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError) as error:
        load(str(tmp_path))
    assert "pickled ones are not opened" in error.value.hint


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    write("gpt2", tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('it was run')")
    edit(tmp_path, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    with pytest.raises(ArtifactError) as error:
        load(str(tmp_path))
    assert "never run" in error.value.hint


@pytest.mark.parametrize("content", [b"", b"{" * 300, b"\x00" * 64])
def test_damaged_files_are_one_line(content: bytes, tmp_path: Path) -> None:
    write("gpt_neox", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError):
        load(str(tmp_path))
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        read_config(str(tmp_path))
    with pytest.raises(ArtifactError):
        read_tokenizer(str(tmp_path))


def test_endless_models_are_refused(tmp_path: Path) -> None:
    write("bert", tmp_path)
    edit(tmp_path, num_hidden_layers=10**9)
    with pytest.raises(ArtifactError, match="declares 1,000,000,000 layers"):
        load(str(tmp_path))
    with pytest.raises(ArtifactError, match="declares 1,000,000,000 layers"):
        configuration(description("bert", num_hidden_layers=10**9))


def test_a_folder_without_tokenizer_has_none(tmp_path: Path) -> None:
    write("gpt_neox", tmp_path)
    with pytest.raises(ArtifactError, match="knows no tokens") as error:
        read_tokenizer(str(tmp_path))
    assert error.value.hint == "is there a tokenizer.json?"


def test_models_without_torchs_own_attention_are_opened(tmp_path: Path) -> None:
    import transformers

    config = transformers.MambaConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, state_size=2)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    assert load(str(tmp_path)).config.model_type == "mamba"


def test_nothing_is_downloaded_without_being_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ArtifactError, match="is no folder here") as error:
        load("nobody/has-this-model", permission="--download")
    assert error.value.hint == "give a folder, or allow a download: --download"
    with pytest.raises(ArtifactError, match="is no folder of a Hugging Face model"):
        load(str(tmp_path / "nowhere"))


def test_descriptions_are_read_without_heads_that_nobody_uses() -> None:
    """A billion labels would take all memory before anything could be compared with what a checkpoint holds."""
    table = description("bert")
    large = configuration(table | {"num_labels": 10**12, "auto_map": {"AutoModel": "own.Model"}})
    assert as_text(large.to_dict()) == as_text(configuration(table).to_dict())
    with pytest.raises(ArtifactError, match="a configuration of nonsense cannot be read"):
        configuration({"model_type": "nonsense"})
    with pytest.raises(ArtifactError, match="a configuration of None cannot be read"):
        configuration({})


def test_the_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError) as error:
        read_config("anything")
    assert error.value.hint == "pip install 'attnprobe[hf]'"


def test_sizes_that_no_weights_stand_for_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    write("bert", tmp_path)
    edit(tmp_path, intermediate_size=10**12)
    with pytest.raises(ArtifactError, match=r"describes [\d,]{18,} parameters, its weights are"):
        load(str(tmp_path))
