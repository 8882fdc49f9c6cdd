"""From a file of one's own to a probe: describe, train, measure; and what happens when the file is gone or changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from attnprobe.cli.train.command import run_folders
from attnprobe.launch.arms import settings_of, with_seeds
from tests.tasks.true_formats import write_arrays, write_images, write_table

TINY = ["model.d_model=8", "model.heads=2", "model.d_mlp=8", "model.layers=1", "pretrain.epochs=1", "finetune.epochs=1"]
SHORT = [part for change in TINY for part in ("-s", change)]
FILES = {"arrays": "values.npz", "arrays-tokens": "tokens.npz", "table": "texts.csv", "images": "photos"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_arrays(tmp_path)
    write_table(tmp_path / "texts.csv")
    write_images(tmp_path / "photos")
    return tmp_path


def train(attnprobe, preset: str, *more: str):
    return attnprobe("train", preset, "-s", f"task.path={FILES[preset]}", *SHORT, "--out", "run", "-q", *more)


@pytest.mark.parametrize("preset", FILES)
def test_describe_train_and_probe(attnprobe, files: Path, preset: str) -> None:
    task = "arrays" if preset == "arrays-tokens" else preset
    described = attnprobe("data", "describe", task, "-s", f"path={FILES[preset]}", "--figure", "sheet.png")
    assert described.code == 0, described.err
    assert f"next: attnprobe train {preset} -s task.path={FILES[preset]}" in described.err
    assert (files / "sheet.png").stat().st_size > 1000
    assert train(attnprobe, preset).code == 0
    manifest = json.loads((files / "run" / "manifest.json").read_text())
    summary = attnprobe("data", "describe", task, "-s", f"path={FILES[preset]}", "--json").document()
    assert set(manifest["data_sha256"].values()) == {summary["fingerprint"]}
    checkpoints = sorted(map(str, (files / "run" / "checkpoints").glob("*.pt")))
    assert len(checkpoints) == 3
    found = attnprobe("probe", "proximity", *checkpoints, "-n", "3", "--json")
    assert found.code == 0, found.err
    assert any(row["quantity"] == "proximity_bias" for row in found.document()["rows"])


def test_describe_says_what_was_understood(attnprobe, files: Path) -> None:
    arguments = ("data", "describe", "arrays", "-s", "path=values.npz")
    summary = attnprobe(*arguments, "--json").document()
    assert summary["class_names"] == ["high", "low", "mid"]
    assert summary["grid"] == [5, 7]
    shown = attnprobe(*arguments)
    for words in ("high: ", "array 'labels'", "drawn by task.data_seed=0", "grid 5 x 7", "classes: 0 = high, 1 = low"):
        assert words in shown.out + shown.err, words


def test_list_names_them(attnprobe) -> None:
    listed = attnprobe("data", "list").out
    assert all(f"your own: {what}" in listed for what in ("an .npz", "a .csv", "a folder"))
    own = {task["name"]: task["own"] for task in attnprobe("data", "list", "--json").document()["tasks"]}
    assert own["table"]
    assert own["textures"] is None


@pytest.mark.parametrize("command", ["generate", "fetch"])
def test_own_data_are_neither_drawn_nor_fetched(attnprobe, command: str) -> None:
    outcome = attnprobe("data", command, "table")
    assert outcome.code == 2
    outcome.complains("table reads your own files", "attnprobe data describe table")


def test_without_a_path_nothing_is_begun(attnprobe, tmp_path: Path) -> None:
    outcome = attnprobe("train", "table")
    assert outcome.code == 2
    outcome.complains("task.path is missing", "-s task.path=")
    assert not (tmp_path / "runs").exists()


def test_probes_notice_that_files_are_gone_or_changed(attnprobe, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(attnprobe, "table").code == 0
    probe = ("probe", "proximity", str(files / "run" / "checkpoints" / "finetuned.pt"), "-n", "3")
    monkeypatch.chdir("/")  # the checkpoint knows the whole path
    assert attnprobe(*probe).code == 0
    path = files / "texts.csv"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("text 0", "text 9", 1), encoding="utf-8")
    outcome = attnprobe(*probe)
    assert outcome.code == 3
    outcome.complains(f"the data in {path} have changed", "train again")
    path.write_text(whole, encoding="utf-8")
    (files / "elsewhere").mkdir()
    path.rename(files / "elsewhere" / "texts.csv")
    outcome = attnprobe(*probe)
    assert outcome.code == 3
    outcome.complains(f"{path} does not exist", "--data-dir")
    assert attnprobe(*probe, "--data-dir", files / "elsewhere").code == 0


def test_a_change_of_labels_alone_is_noticed(attnprobe, files: Path) -> None:
    """It changes nothing that a model must know of its inputs."""
    assert train(attnprobe, "arrays-tokens").code == 0
    arrays = dict(np.load(files / "tokens.npz"))
    arrays["labels"] = 1 - arrays["labels"]
    np.savez_compressed(files / "tokens.npz", **arrays)
    outcome = attnprobe("probe", "proximity", "run/checkpoints/finetuned.pt", "-n", "3")
    assert outcome.code == 3
    outcome.complains("have changed since the model")


def test_an_interrupted_run_goes_on_only_with_the_same_data(attnprobe, files: Path) -> None:
    assert train(attnprobe, "table").code == 0
    (files / "run" / "result.json").unlink()  # as if it had been stopped before its end
    path = files / "texts.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("text 0", "text 9", 1), encoding="utf-8")
    outcome = train(attnprobe, "table", "--resume")
    assert outcome.code == 3
    outcome.complains("was started on other data than is found now")


def test_runs_on_different_files_go_to_different_folders(tmp_path: Path) -> None:
    def folder(preset: str, file: str) -> str:
        table = settings_of(preset.replace("mine.toml", "table"), [f"task.path={tmp_path / file}"])
        (found,) = run_folders(preset, with_seeds(table, [0]), None, several=False)
        return str(found)

    assert folder("table", "texts.csv") == "runs/table-texts-s0"
    assert folder("table", "more texts!.csv") == "runs/table-more-texts-s0"
    assert folder("images", "photos") == "runs/images-photos-s0"
    assert folder("mine.toml", "texts.csv") == "runs/mine-s0"


def test_settings_of_the_task_reach_a_phase_that_changes_some(attnprobe, tmp_path: Path) -> None:
    """finetune.task without a name is the run's task, changed; with a name it is another one."""
    (tmp_path / "mine.toml").write_text(
        '[task]\nname = "textures"\nside = 6\n'
        '[finetune]\nobjective = "classification"\n[finetune.task]\nshortcut = 0.5\n'
    )
    plan = attnprobe("train", "mine.toml", "-s", "task.data_seed=3", "--dry-run", "--json").document()["settings"]
    assert plan["finetune"]["task"] == plan["task"] | {"shortcut": 0.5}
    assert plan["task"]["data_seed"] == 3
    named = ("-s", "finetune.task.name=textures", "-s", "finetune.task.side=6")
    plan = attnprobe("train", "mine.toml", "-s", "task.data_seed=3", *named, "--dry-run", "--json").document()
    assert plan["settings"]["finetune"]["task"]["data_seed"] == 0
    changed = attnprobe("train", "textures", "-s", "pretrain.task.fraction=0.5", "--dry-run", "--json").document()
    assert [phase["train_samples"] for phase in changed["phases"].values()] == [500, 1000]
    wrong = attnprobe("train", "textures", "-s", "pretrain.task.max_length=5", "--dry-run")
    assert wrong.code == 2
    wrong.complains("unknown setting 'pretrain.task.max_length'")
