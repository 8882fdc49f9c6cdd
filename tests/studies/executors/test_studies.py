"""Whoever carries a study out, and whatever happens to a worker: the same answers, each run recorded once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attnprobe.studies.request import Request
from tests.studies.conftest import STUDY
from tests.studies.executors.conftest import OPTIONS, marked
from tests.studies.executors.jobs import meanwhile
from tests.training.equality import assert_equal_runs

FOUR_RUNS = STUDY.replace("[axes.arm.all]\n", "")  # of two arms and two seeds; one arm shares pretrainings
LONGER = FOUR_RUNS.replace('"finetune.epochs" = 4', '"finetune.epochs" = 30')
SAVE_OFTEN = "from attnprobe.training import execute\n\nexecute.SECONDS_BETWEEN_SAVES = 0.0\n"
ROOT = Path(__file__).parents[3]


def carried_out(text: str, executor: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """``attnprobe study run`` on two workers; its store is below the folder. path: before the usual PYTHONPATH."""
    (folder / "small.toml").write_text(text)
    options = [part for option in OPTIONS.get(executor, []) for part in ("--executor-option", option)]
    command = [sys.executable, "-m", "attnprobe", "study", "run", "small.toml", "--device", "cpu", "--out", "store"]
    command += ["--executor", executor, *options, *(["--jobs", "2"] if executor != "serial" else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def assert_as_in_one_process(
    text: str, folder: Path, study: Callable[..., Request], run_all: Callable[..., dict]
) -> None:
    """Numbers, checkpoints and records of every run are those of runs one after the other, undisturbed."""
    undisturbed, found = study(text=text, out=folder / "undisturbed"), study(text=text, out=folder / "store")
    assert set(run_all(undisturbed).values()) == {None}
    assert len(found.outcomes()) == 4
    for one, other in zip(undisturbed.outcomes(), found.outcomes(), strict=True):
        assert (one.place, one.seed) == (other.place, other.seed)
        assert one.numbers
        assert one.numbers | {"seconds": 0} == other.numbers | {"seconds": 0}
    names = {path.name for path in (folder / "undisturbed" / "runs").iterdir()}
    assert names == {path.name for path in (folder / "store" / "runs").iterdir()}
    for name in names:
        assert_equal_runs(folder / "undisturbed" / "runs" / name, folder / "store" / "runs" / name)
        lines = [json.loads(line) for line in (folder / "store" / "runs" / name / "metrics.jsonl").open()]
        epochs = [(line["phase"], line["epoch"]) for line in lines]
        assert len(set(epochs)) == len(epochs), "each epoch is recorded once"


@pytest.mark.slow
def test_the_same_answers_whoever_carries_it_out(executor: str, study, run_all, tmp_path: Path) -> None:
    told = carried_out(FOUR_RUNS, executor, tmp_path)
    assert told.returncode == 0, told.stderr
    assert "lost" not in told.stderr
    assert not list(tmp_path.glob("store/executor/*")), "no logs of what went well"
    assert_as_in_one_process(FOUR_RUNS, tmp_path, study, run_all)


@pytest.mark.slow
@pytest.mark.parametrize("executor", [marked("processes"), marked("ray"), marked("slurm")])
def test_a_worker_killed_in_a_training_changes_nothing(executor: str, study, run_all, tmp_path: Path) -> None:
    """The run goes on from its save: what it had recorded before stays."""
    often = tmp_path / "often"
    often.mkdir()
    (often / "sitecustomize.py").write_text(SAVE_OFTEN if executor == "processes" else "")
    victim: list[Path] = []
    before: list[str] = []
    over = threading.Event()

    def kill() -> None:
        def found() -> list[Path]:
            return [
                path.parent for path in tmp_path.glob("store/runs/*/metrics.jsonl")
                if path.read_text().count("finetuned") >= 5 and not (path.parent / "result.json").exists()
                and (executor != "processes" or (path.parent / "resume.pt").exists())
            ]  # fmt: skip

        while not over.wait(0.02):
            if runs := found():
                victim.append(runs[0])
                before.extend((runs[0] / "metrics.jsonl").read_text().splitlines()[:1])
                os.kill(json.loads((runs[0] / ".attnprobe").read_text())["process"], signal.SIGKILL)
                return

    with meanwhile(kill):
        told = carried_out(LONGER, executor, tmp_path, str(often))
        over.set()
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("lost, tried again") == 1
    assert bool(list(tmp_path.glob("store/executor/*"))) == (executor == "slurm"), "the log of the lost job is kept"
    assert_as_in_one_process(LONGER, tmp_path, study, run_all)
    if executor == "processes":
        after = (victim[0] / "metrics.jsonl").read_text().splitlines()
        assert after[:1] == before, "with the time at which it was written: it was not begun anew"
