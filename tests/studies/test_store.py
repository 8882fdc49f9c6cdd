"""Ten thousand finished runs are read fast, without torch; what is damaged among them counts as missing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnprobe.studies.store.folder import Store
from attnprobe.studies.store.status import status
from attnprobe.training.loop import Interrupted

RESULT = {
    "run_dir": "x", "checkpoints": {"init": "a", "finetuned": "b"}, "seed": 0, "phase": "finetuned",
    "objective": "classification", "seconds": 7.25, "train_loss": 0.5, "validation_loss": 0.7, "test_loss": 0.75,
    "train_accuracy": 0.875, "validation_accuracy": 0.75, "test_accuracy": 0.625,
}  # fmt: skip
MANIFEST = {
    "argv": ["x"] * 20,
    "platform": "x" * 200,
    "attention": {"finetuned": "flash"},
    "data_notes": {"x": "y" * 200},
}


def finish(store: Store, key: str, **changes) -> None:
    """A run directory as a finished run leaves it, without its training."""
    folder = store.run(key)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT | changes, indent=2))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"study": {"key": key, "checkpoints": {}}}, indent=2))


def grid_of(seeds: int, axes: str) -> str:
    return f"""
title = "Many runs"
question = "How fast?"
{axes}
[tables.main]
rows = ["size"]
columns = ["arm"]
[scales.many]
preset = "textures"
seeds = {seeds}
"""


AXES = "".join(f'[axes.size."{n}"]\nsettings = {{ "task.n_train" = {n} }}\n' for n in range(100, 200))
AXES += "".join(f'[axes.arm.a{n}]\nsettings = {{ "finetune.epochs" = {n} }}\n' for n in range(1, 11))

READ = """
import sys, time
start = time.process_time()
from attnprobe.studies.request import request
asked = request(sys.argv[1], out=sys.argv[2])
found = asked.outcomes()
seconds = time.process_time() - start
assert "torch" not in sys.modules
print(len(found), sum(bool(o.numbers) for o in found), seconds)
"""


@pytest.mark.slow
def test_ten_thousand_outcomes(study, tmp_path: Path) -> None:
    asked = study(text=grid_of(10, AXES))
    asked.store.claim()
    for planned in asked.runs:
        finish(asked.store, planned.key, seed=planned.seed)
    for key in {planned.pretraining for planned in asked.runs}:
        finish(asked.store, key, phase="pretrained", seconds=2.5)
    asked.store.run(asked.runs[0].key).joinpath("result.json").write_text("{")
    command = [sys.executable, "-c", READ, str(tmp_path / "small.toml"), str(asked.store.path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    count, finished, seconds = said.split()
    assert (count, finished) == ("10000", "9999")
    assert float(seconds) < 3, "of the processor; others may share it"
    assert asked.outcomes()[1].numbers["seconds"] == 7.25 + 2.5
    start = time.process_time()
    assert status(asked)["states"]["damaged"] == 1
    assert time.process_time() - start < 6


def test_a_result_without_its_manifest_is_not_finished(study) -> None:
    asked = study(seeds=[0])
    key = asked.runs[0].key
    finish(asked.store, key)
    assert asked.outcomes()[0].numbers["test_accuracy"] == 0.625
    manifest = asked.store.run(key) / "manifest.json"
    manifest.write_text(json.dumps(MANIFEST))
    assert not asked.outcomes()[0].numbers, "killed before it was said whose it is"
    manifest.write_text(json.dumps(MANIFEST | {"study": {"key": asked.runs[1].key}}))
    assert not asked.outcomes()[0].numbers, "copied from another run"


def test_numbers_that_are_not_finite_or_not_there_are_left_out(study) -> None:
    asked = study(seeds=[0])
    finish(asked.store, asked.runs[0].key, test_accuracy=None, test_loss=10**400, test_r2=0.5)
    numbers = asked.outcomes()[0].numbers
    assert not {"test_accuracy", "test_loss"} & numbers.keys()
    assert numbers["test_r2"] == 0.5


def test_a_result_that_cannot_be_opened_is_damaged(study) -> None:
    asked = study(seeds=[0])
    key = asked.runs[0].key
    (asked.store.run(key) / "result.json").mkdir(parents=True)
    assert asked.store.state(key)[0] == "damaged"


def test_a_study_that_was_asked_to_stop_has_not_failed(study, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = {"one": None, "other": Interrupted()}
    monkeypatch.setattr("attnprobe.studies.work.carrying.complete", lambda *_: stopped)
    with pytest.raises(Interrupted):
        study(seeds=[0]).run()
