"""A run whose pretraining was carried out apart is the run in one piece, bit for bit."""

import json
from pathlib import Path

import pytest
import torch

from attnprobe import presets
from attnprobe.config import override
from attnprobe.studies.plan.meaning import config_of, content_of
from attnprobe.studies.plan.split import continuation_of, pretraining_of
from attnprobe.training.execute import execute
from attnprobe.training.monitor import Silent
from attnprobe.training.saved.checkpoint import load_checkpoint

OWN = ("run_dir", "checkpoints", "seconds")


def result(folder: Path) -> dict:
    return {k: v for k, v in json.loads((folder / "result.json").read_text()).items() if k not in OWN}


VARIANTS = {
    "textures": "",
    "everything that draws": '"model.dropout" = 0.1\n"model.positions" = "learned"\n"model.readout" = "token"\n',
    "other data before": '"pretrain.task" = { n_train = 37, data_seed = 7 }\n',
    "as published": '"published" = true\n',
    "some of it frozen": '"finetune.freeze" = "qk"\n',
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_run_in_two_parts_is_the_run_in_one(study, run_all, tmp_path: Path, changes: str) -> None:
    more = f"[scales.other]\nseeds = 1\npreset = 'textures'\n[scales.other.settings]\n{changes}"
    asked = study(more, scale="other", seeds=[3])
    assert set(run_all(asked).values()) == {None}
    compared = 0
    for planned in asked.runs:
        whole, apart = tmp_path / f"whole-{planned.key}", asked.store.run(planned.key)
        execute(config_of(planned.arm.table, seed=3), whole, device=torch.device("cpu"), monitor=Silent())
        assert result(whole) == result(apart)
        parts = {"finetuned": planned.key} | ({"pretrained": planned.pretraining} if planned.pretraining else {})
        for name, key in parts.items():
            one = load_checkpoint(whole / "checkpoints" / f"{name}.pt")
            two = load_checkpoint(asked.store.checkpoint(key, name))
            assert one.state.keys() == two.state.keys()
            assert all(torch.equal(tensor, two.state[key]) for key, tensor in one.state.items()), name
            assert (one.epoch, one.numbers, one.target) == (two.epoch, two.numbers, two.target)
            compared += 1
    assert compared == 1 + 2 + 2  # from scratch, and two arms with a pretraining


def content(*changes: str, recording: float | None = None):
    return content_of(override(presets.read_table("textures"), changes), recording)


def test_pretraining_is_shared_where_nothing_of_it_differs() -> None:
    plain = content()
    for after in ("finetune.optimizer.lr=1e-4", "finetune.transfer=qk", "finetune.freeze=mlp", "finetune.epochs=3"):
        other = content(after)
        assert other.pretraining == plain.pretraining
        assert other.own != plain.own
    for before in ("pretrain.optimizer.lr=1e-4", "model.layers=2", "task.n_train=7", "engine.batching=padded"):
        assert content(before).pretraining != plain.pretraining
    assert content(recording=2.0).pretraining != plain.pretraining, "without a trajectory it is of no use"
    assert content("model.mixer=s4d", recording=2.0) == content("model.mixer=s4d"), "which cannot be recorded"


def test_pretraining_on_the_same_data_is_the_same_whatever_is_learned_after() -> None:
    same = 'pretrain.task={name="textures",side=8,classes=6,n_train=37}'
    assert content(same).pretraining == content(same, "task.n_train=91").pretraining
    moved = config_of(override(presets.read_table("textures"), [same]))
    first = pretraining_of(moved)
    assert first is not None
    assert first.task == moved.task_of(moved.pretrain)
    assert first.pretrain.task is None
    assert continuation_of(moved).task == moved.task


def test_a_first_phase_on_labels_is_not_taken_apart() -> None:
    on_labels = 'pretrain.objective={name="classification"}'
    assert content(on_labels).pretraining is None
    assert content("finetune.epochs=3").own != content("finetune.epochs=3", on_labels).own


def test_the_same_text_in_other_words_is_the_same_run() -> None:
    assert content("seed=0") == content("task.data_seed=0") == content(), "defaults, said or not"
