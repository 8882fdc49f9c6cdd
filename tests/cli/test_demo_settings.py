"""`attnprobe demo -s` and $ATTNPROBE_SET reach the runs of both arms; what the demo says can be done with the demo."""

from pathlib import Path

import pytest

from attnprobe.cli import demo
from attnprobe.errors import ArtifactError
from attnprobe.launch import runs as launched
from attnprobe.training.loop import Interrupted


def test_settings_reach_both_arms(tmp_path: Path, monkeypatch) -> None:
    def results(configs, folders, *_, **__) -> list[dict]:
        asked.extend(configs)
        return [{"run_dir": str(folder)} for folder in folders]

    asked = []
    monkeypatch.setattr(demo, "train_all", results)
    monkeypatch.setenv("ATTNPROBE_SET", "model.layers=2 finetune.epochs=3 pretrain.epochs=7")
    found = demo.train_arms([0, 3], tmp_path, "cpu", True, ["finetune.epochs=4"])
    assert {(c.model.layers, c.finetune.epochs) for c in asked} == {(2, 4)}
    assert [c.pretrain and c.pretrain.epochs for c in asked] == [7, 7, None, None]  # the longer runs begin first
    assert {arm: [Path(r["run_dir"]).name for r in runs] for arm, runs in found.items()} == {
        "scratch": ["scratch-s0", "scratch-s3"],
        "pretrained": ["pretrained-s0", "pretrained-s3"],
    }


@pytest.mark.parametrize("mistake", [("-s", "foo.bar=1"), ("--seeds", "x"), ("-s", "pretrained=init.pt")])
def test_a_mistake_marks_no_folder(mistake: tuple[str, str], attnprobe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert attnprobe("demo", "--out", ".", *mistake).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_hints_name_only_options_of_the_demo(attnprobe, monkeypatch) -> None:
    def interrupt(*_, **__) -> None:
        raise Interrupted

    monkeypatch.setattr(launched, "launch", interrupt)
    assert "Go on with the same command.\n" in attnprobe("demo").err
    assert "Go on with the same command and --resume.\n" in attnprobe("train").err
    for hint in ("start again: --overwrite", "go on with the same command and --resume"):

        def fail(*_, hint=hint, **__) -> None:
            raise ArtifactError("result.json is damaged", hint=hint)

        monkeypatch.setattr(launched, "launch", fail)
        said = attnprobe("demo").err
        assert "hint:" in said
        assert "--overwrite" not in said
        assert "--resume" not in said
