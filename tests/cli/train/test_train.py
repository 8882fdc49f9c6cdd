import json
from pathlib import Path

import pytest
import torch

from attnprobe.tasks.fashion_mnist import DEBIAN_FOLDER

RESULT_KEYS = {
    "run_dir", "checkpoints", "train_accuracy", "validation_accuracy", "test_accuracy", "seconds", "seed",
}  # fmt: skip


def test_train_prints_one_json_document(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert set(document) >= RESULT_KEYS
    assert document["run_dir"] == "runs/textures-s0"
    assert document == json.loads(Path("runs/textures-s0/result.json").read_text())
    assert set(document["checkpoints"]) == {"init", "pretrained", "finetuned"}


def test_table_for_people_says_what_to_do_next(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--no-pretrain")
    assert outcome.code == 0
    for word in ("train accuracy", "validation accuracy", "test accuracy", "seconds", "runs/textures-scratch-s0"):
        assert word in outcome.out
    assert "next: attnprobe probe proximity runs/textures-scratch-s0/checkpoints/init.pt" in outcome.err
    assert "finetuned: epoch 1/1" in outcome.err
    assert "\x1b[" not in outcome.out + outcome.err  # plain text when nobody watches


def test_pretraining_only_and_finetuning_from_a_checkpoint(attnprobe, tiny) -> None:
    assert attnprobe("train", *tiny, "--no-finetune", "--out", "first").code == 0
    assert not Path("first/checkpoints/finetuned.pt").exists()
    outcome = attnprobe("train", *tiny, "--pretrained", "first/checkpoints/pretrained.pt", "--out", "second", "--json")
    whole = attnprobe("train", *tiny, "--out", "whole", "--json")
    assert outcome.document()["test_loss"] == whole.document()["test_loss"]


def test_several_seeds(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--seeds", "0,3", "--json")
    assert [run["seed"] for run in outcome.document()["runs"]] == [0, 3]
    assert Path("runs/textures/s3/result.json").exists()


def test_several_seeds_as_one_ensemble(attnprobe, tiny) -> None:
    side_by_side = attnprobe("train", *tiny, "--seeds", "0,3", "--out", "apart", "--json").document()["runs"]
    outcome = attnprobe("train", *tiny, "--seeds", "0,3", "--together", "--out", "together")
    assert outcome.code == 0
    assert "2 runs in step" in outcome.err
    for run in side_by_side:
        result = json.loads(Path(f"together/s{run['seed']}/result.json").read_text())
        assert result["test_loss"] == pytest.approx(run["test_loss"], rel=1e-4)
    refused = attnprobe("train", *tiny, "--seeds", "2", "--together", "--mode", "graph", "--out", "graph")
    assert refused.code == 4
    assert "trains one run at a time" in refused.err


def test_mode_and_its_earlier_name(attnprobe, tiny) -> None:
    for option in ("--mode", "--engine"):
        document = attnprobe("train", *tiny, option, "eager", "--dry-run", "--json").document()
        assert document["settings"]["engine"]["mode"] == "eager"
    assert "--engine" not in attnprobe("train", "--help").out


def test_settings_file_and_environment(attnprobe, tiny, monkeypatch) -> None:
    printed = attnprobe("presets", "textures")
    Path("mine.toml").write_text(printed.out)
    monkeypatch.setenv("ATTNPROBE_SET", "model.layers=2 model.heads=4")
    document = attnprobe("train", "mine.toml", *tiny, "--dry-run", "--json").document()
    assert document["settings"]["model"]["layers"] == 2
    assert document["settings"]["model"]["heads"] == 2  # -s is stronger than the environment
    assert document["phases"]["finetuned"]["steps"] == 1
    assert document["run_dirs"] == ["runs/mine-s0"]
    assert not Path("runs").exists()


def test_dry_run_estimates_memory_and_time(attnprobe, tiny, tmp_path) -> None:
    document = attnprobe("train", *tiny, "--dry-run", "--json").document()
    assert set(document) == {
        "run_dirs", "refused", "parameters", "phases", "memory", "seconds", "device", "settings", "published",
    }  # fmt: skip
    assert document["refused"] is None
    numbers = document["phases"]["pretrained"]
    assert document["memory"] >= numbers["memory"]["total"] > numbers["memory"]["activations"] > 0
    assert document["seconds"] >= numbers["seconds"] >= numbers["steps"] * numbers["seconds_per_step"] > 0
    assert not list(tmp_path.iterdir())


def test_dry_run_says_that_the_run_would_be_refused(attnprobe, tiny) -> None:
    Path("thesis").mkdir()
    Path("thesis/thesis.tex").write_text("mine")
    for more in ([], ["--overwrite"], ["--resume"]):
        dry = attnprobe("train", *tiny, "--out", "thesis", "--dry-run", *more)
        assert dry.code == 0
        real = attnprobe("train", *tiny, "--out", "thesis", *more)
        assert real.code in (2, 3)
        reason = real.err.split("error: ")[1].splitlines()[0]
        assert f"warning: without --dry-run this would be refused: {reason}" in dry.err
        assert attnprobe("train", *tiny, "--out", "thesis", "--dry-run", "--json", *more).document()["refused"]


def test_dry_run_draws_no_data(attnprobe, monkeypatch) -> None:
    """Millions of images: the sizes are told without them."""
    monkeypatch.setattr("attnprobe.tasks.pathfinder.task.Pathfinder.load", None)
    document = attnprobe("train", "pathfinder-small", "-s", "task.n_train=2000000", "--dry-run", "--json").document()
    assert document["phases"]["finetuned"]["train_samples"] == 2_000_000


@pytest.mark.parametrize("width", [60, 80])
def test_dry_run_and_results_fit_the_terminal(attnprobe, tiny, width: int, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for outcome in (attnprobe("train", *tiny, "--dry-run"), attnprobe("train", *tiny)):
        assert max(map(len, outcome.out.splitlines())) <= width
        assert {"pretrained", "finetuned"} & set(outcome.out.split())


def test_dry_run_obeys_quiet(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--dry-run", "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_dry_run_for_people(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--dry-run")
    assert outcome.code == 0
    assert "parameters" in outcome.out
    assert "[pretrain.objective]" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["texturs"], 2, ["unknown preset 'texturs'", "did you mean 'textures'"]),
        (["-s", "model.d_modle=3"], 2, ["unknown setting 'model.d_modle'", "d_model"]),
        (["-s", "model.d_model=wide"], 2, ["model.d_model must be a whole number"]),
        (["-s", "model.d_model=-4"], 2, ["model.d_model must be greater than zero"]),
        (["-s", "model.d_model=0"], 2, ["model.d_model must be greater than zero"]),
        (["-s", "model.heads=3"], 2, ["model.d_model must be divisible by heads"]),
        (["-s", "model.positions=rotory"], 2, ["model.positions cannot be 'rotory'", "rotary"]),
        (["-s", "finetune.transfer=[\"blocks.9.*\"]"], 2, ["matches no parameter"]),
        (["-s", "nonsense"], 2, ["cannot read the setting"]),
        (["-s", "finetune.optimizer.lr=1e400"], 2, ["must be a finite number"]),
        (["-s", "finetune.freeze=[\"nothing.*\"]"], 2, ["freeze pattern", "matches no parameter"]),
        (["--dry-run", "--pretrained", "missing.pt"], 3, ["missing.pt does not exist"]),
        (["--seeds", "x"], 2, ["no list of different seeds"]),
        (["--seed", "1", "--seeds", "2"], 2, ["exclude each other"]),
        (["--resume", "--overwrite"], 2, ["exclude each other"]),
        (["missing.toml"], 3, ["missing.toml does not exist"]),
        (["--pretrained", "missing.pt"], 3, ["missing.pt does not exist"]),
        (["--device", "gpu"], 2, ["unknown device 'gpu'"]),
        (["--out", "/proc/nowhere/x"], 1, ["cannot write"]),
    ],
)  # fmt: skip
def test_mistakes(attnprobe, tiny, arguments: list[str], code: int, words: list[str]) -> None:
    preset = [a for a in arguments[:1] if not a.startswith("-")]
    outcome = attnprobe("train", *preset, *tiny, *arguments[len(preset) :], "-q")
    assert outcome.code == code
    outcome.complains(*words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(attnprobe, tiny) -> None:
    outcome = attnprobe("train", *tiny, "--device", "cuda", "-q")
    assert outcome.code == 1
    outcome.complains("no cuda device", "--device cpu")


def test_occupied_folder(attnprobe, tiny, trained) -> None:
    outcome = attnprobe("train", *tiny, "--out", trained, "-q")
    assert outcome.code == 2
    outcome.complains("is not empty", "--resume", "--overwrite")
    assert attnprobe("train", *tiny, "--out", trained, "-q", "--resume").code == 0
    assert attnprobe("train", *tiny, "--out", trained, "-q", "--overwrite", "--seed", 1).code == 0


@pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_a_short_training_on_real_images(attnprobe) -> None:
    """Eight epochs on 1500 images pooled to 7 x 7 (0.68 when this was written); chance is 0.1."""
    changes = ("task.n_train=1500", "task.side=7", "model.d_model=32", "pretrain.epochs=1", "finetune.epochs=8")
    changes += ("finetune.batch_size=25", "finetune.optimizer.lr=3e-3")
    arguments = [part for change in changes for part in ("-s", change)]
    document = attnprobe("train", "fashion-mnist", *arguments, "--json").document()
    assert document["test_accuracy"] > 0.5
