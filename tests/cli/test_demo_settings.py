"""`attnprobe demo -s` and $ATTNPROBE_SET reach the runs of both arms."""

from pathlib import Path

from attnprobe.cli import demo


def test_settings_reach_both_arms(tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(demo, "train_all", lambda configs, *_, **__: asked.extend(configs) or [{"seed": 0}])
    monkeypatch.setenv("ATTNPROBE_SET", "model.layers=2 finetune.epochs=3")
    for arm in demo.ARMS:
        demo.train_arm(arm, [0], tmp_path, "cpu", True, ["finetune.epochs=4"])
    assert [(c.model.layers, c.finetune.epochs, c.pretrain is None) for c in asked] == [(2, 4, True), (2, 4, False)]
