"""Every kind of Hugging Face backbone is trained like our own blocks: carried over, frozen, resumed, opened."""

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from attnprobe import run
from attnprobe.config import override
from attnprobe.errors import ArtifactError, ConfigError, NotApplicableError
from attnprobe.models.hugging_face.loading import library
from attnprobe.models.hugging_face.settings import as_text
from attnprobe.models.parameter_sets import sets_of
from attnprobe.opening import Opener
from attnprobe.run import RunConfig
from attnprobe.training.ensembles.ensemble import check_alike
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from tests.models.hugging_face.small import CAUSAL, KINDS, description, write

pytestmark = pytest.mark.hf
CPU = torch.device("cpu")
LONGER = {  # for textures of 5 x 5
    "gpt2": {"n_positions": 25}, "bert": {"max_position_embeddings": 25}, "roberta": {"max_position_embeddings": 29},
}  # fmt: skip


@pytest.fixture
def tiny(small):
    """Textures without the sizes of our own blocks, and an objective that fits the kind."""

    def make(kind: str, *changes: str) -> RunConfig:
        table = run.to_table(small("pretrain.epochs=2", "finetune.epochs=2"))
        model = {"backbone": {"architecture": as_text(description(kind, **LONGER.get(kind, {}))), "weights": "drawn"}}
        table |= {"model": model | {"causal": kind in CAUSAL}}
        table["pretrain"]["objective"] = {"name": "causal" if kind in CAUSAL else "masked"}
        return run.resolved(run.from_table(override(table, changes)))

    return make


def states(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.stem: load_checkpoint(p).state for p in (path / "checkpoints").glob("*.pt")}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_carried_over_and_resumed_to_the_bit(kind: str, tiny, monitor, tmp_path) -> None:
    config = tiny(kind, "finetune.transfer=qk", "finetune.freeze=qk")
    execute(config, tmp_path / "whole", device=CPU, monitor=monitor)
    asked = iter(range(10**6))
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "halves", device=CPU, monitor=monitor, should_stop=lambda: next(asked) == 5)
    execute(config, tmp_path / "halves", device=CPU, monitor=monitor, resume=True)
    whole, halves = states(tmp_path / "whole"), states(tmp_path / "halves")
    assert whole.keys() == halves.keys() == {"init", "pretrained", "finetuned"}
    for stage, state in whole.items():
        assert all(torch.equal(tensor, halves[stage][key]) for key, tensor in state.items())
    qk = sets_of(load_checkpoint(tmp_path / "whole/checkpoints/init.pt").make_model())["qk"]
    kept = {key for key, tensor in whole["finetuned"].items() if torch.equal(tensor, whole["pretrained"][key])}
    moved = {key for key, tensor in whole["pretrained"].items() if not torch.equal(tensor, whole["init"][key])}
    assert qk <= kept
    assert {name for name in qk if name.endswith("weight")} <= moved
    assert not any(key.startswith("backbone.") for key in moved & kept - qk)


def test_a_pretrained_folder_is_finetuned_and_then_no_longer_needed(small, monitor, tmp_path) -> None:
    library()
    written = write("gpt_neox", tmp_path / "folder", max_position_embeddings=25)
    table = run.to_table(small("finetune.epochs=1"))
    table.pop("pretrain")
    table["model"] = {"backbone": {"source": str(tmp_path / "folder")}}
    config = run.resolved(run.from_table(table))
    assert config.model.causal
    assert json.loads(config.model.backbone.architecture)["model_type"] == "gpt_neox"
    assert run.resolved(run.from_table(run.to_table(config))) == config
    execute(config, tmp_path / "run", device=CPU, monitor=monitor)
    shutil.rmtree(tmp_path / "folder")
    path = tmp_path / "run/checkpoints/init.pt"
    state = torch.load(path, weights_only=True)["state"]
    theirs = written.gpt_neox.layers[1].mlp.dense_h_to_4h.weight
    assert torch.equal(state["backbone.layers.1.mlp.dense_h_to_4h.weight"], theirs)
    opened = Opener(device="cpu").open(path)
    assert torch.equal(opened.model.backbone.layers[1].mlp.dense_h_to_4h.weight, theirs)
    assert [layer.heads for layer in opened.subject().layers] == [2, 2]
    with pytest.raises(NotApplicableError, match="Hugging Face backbone"):
        opened.model(torch.zeros(1, 25, 1), observe=print)
    with pytest.raises(ArtifactError, match="is no folder of a Hugging Face model"):
        execute(config, tmp_path / "again", device=CPU, monitor=monitor)


def test_a_damaged_description_does_not_make_opening_endless(tiny, monitor, tmp_path) -> None:
    execute(tiny("llama"), tmp_path / "run", device=CPU, monitor=monitor)
    path = tmp_path / "run/checkpoints/init.pt"
    document = torch.load(path, weights_only=True)
    backbone = document["run"]["model"]["backbone"]
    for change, message in (
        ({"num_hidden_layers": 10**9}, "fewer tensors than its model"),
        ({"hidden_size": 10**12}, "cannot be read"),
        ({"hidden_size": 32}, "tensor .* should be"),
        ({"num_attention_heads": 0}, "cannot be read"),
        ({"model_type": "t5"}, "cannot be read|encoder"),
    ):
        table = document["run"]["model"] | {
            "backbone": backbone | {"architecture": as_text(description("llama") | change)}
        }
        torch.save(document | {"run": document["run"] | {"model": table}}, tmp_path / "damaged.pt")
        with pytest.raises((ArtifactError, ConfigError), match=message):
            load_checkpoint(tmp_path / "damaged.pt")


def test_what_is_not_offered_is_refused(tiny, small, monitor, tmp_path) -> None:
    with pytest.raises(NotApplicableError, match="cannot be stacked into an ensemble"):
        check_alike([tiny("gpt_neox"), tiny("gpt_neox", "seed=1")])
    masked = tiny("gpt_neox", "pretrain.objective.name=masked")
    with pytest.raises(ConfigError, match=r"model\.causal must be false for masked"):
        execute(masked, tmp_path / "run", device=CPU, monitor=monitor)
    with pytest.raises(ConfigError, match="d_model is a setting of our own blocks"):
        small("model.backbone.source=x")
    encoder_decoder = tiny("bert", "finetune.transfer=none")
    text = '{"model_type": "t5", "num_layers": 1, "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "vocab_size": 40}'
    table = run.to_table(encoder_decoder)
    table["model"]["backbone"]["architecture"] = text
    with pytest.raises(ConfigError, match="neither a causal nor a masked encoder"):
        execute(run.from_table(table), tmp_path / "run", device=CPU, monitor=monitor)
    assert not (tmp_path / "run").exists()
