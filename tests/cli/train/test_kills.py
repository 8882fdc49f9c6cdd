"""Runs that are killed or interrupted go on by what the message says, and end as if nothing had happened."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from attnprobe.errors import RunError
from attnprobe.launch import runs as launched
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from tests.training.equality import assert_equal_runs

KINDS = {
    "plain": ["--out", "killed/s0"],
    "together": ["--seeds", "2", "--together", "--out", "killed"],
    "probed": ["--probe-every", "2", "--out", "killed/s0"],
}
LONG = ["-s", "pretrain.epochs=60", "-s", "finetune.epochs=20", "-q"]
SAVE_OFTEN = "import sys; from attnprobe.training import execute; execute.SECONDS_BETWEEN_SAVES = 0.02\n"


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of its own session, which ends with the test."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", f"{SAVE_OFTEN}from attnprobe.cli import main; main(sys.argv[1:])", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=-1, stderr=-1, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not happened():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def has_lines(run: Path, least: int) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") >= least


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_equals_never_killed(kind: str, attnprobe, tmp_path: Path, tiny) -> None:
    arguments = ["train", *tiny, *LONG, *KINDS[kind]]
    with started(tmp_path, *arguments) as process:
        wait_until(lambda: has_lines(tmp_path / "killed" / "s0", 5) and any(tmp_path.glob("killed/s0/resume.pt")))
        process.kill()
        process.wait()
        assert not (tmp_path / "killed" / "s0" / "result.json").exists()
    assert attnprobe(*arguments, "--resume").code == 0
    assert attnprobe(*(part.replace("killed", "whole") for part in arguments)).code == 0
    for run in ("s0", "s1") if kind == "together" else ("s0",):
        assert_equal_runs(tmp_path / "whole" / run, tmp_path / "killed" / run)


@pytest.mark.slow
def test_interrupted_and_resumed_equals_never_interrupted(attnprobe, tmp_path: Path, tiny) -> None:
    arguments = ["train", *tiny, "-s", "pretrain.epochs=150", "-s", "finetune.epochs=3", "--out", "run"]
    with started(tmp_path, *arguments) as process:
        wait_until(lambda: has_lines(tmp_path / "run", 3))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert (tmp_path / "run" / "resume.pt").exists()
    assert not has_lines(tmp_path / "run", 150)
    assert attnprobe(*arguments, "--resume", "-q").code == 0
    assert attnprobe(*arguments[:-1], "through", "-q").code == 0
    assert_equal_runs(tmp_path / "run", tmp_path / "through")


def writers(folder: Path) -> list[int]:
    return [json.loads((folder / f"s{seed}" / ".attnprobe").read_text())["process"] for seed in (0, 1)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes by /proc")
def test_processes_of_seeds_end_with_their_parent_and_die_alone(attnprobe, tmp_path: Path, tiny) -> None:
    runs = tmp_path / "runs"
    arguments = ["train", *tiny, "-s", "pretrain.epochs=100000", "--seeds", "2", "--out", "runs", "-q"]
    with started(tmp_path, *arguments) as process:
        wait_until(lambda: all(has_lines(runs / f"s{seed}", 3) for seed in (0, 1)))
        busy = writers(runs)
        second = attnprobe(*arguments, "--resume")
        assert second.code == 2
        second.complains(f"process {busy[0]} on", "is writing to runs/s0", "hint:")
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in busy))

    def kill_one() -> None:
        wait_until(lambda: not set(busy) & set(writers(runs)) and all(has_lines(runs / f"s{n}", 3) for n in (0, 1)))
        os.kill(writers(runs)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    outcome = attnprobe(*arguments, "--resume")
    killer.join()
    assert outcome.code == 1
    outcome.complains("the process of seed 0 was killed (signal 9)", "--resume")
    assert (runs / "s1" / "resume.pt").exists(), "the others have saved"


def test_half_made_folders_block_nothing(attnprobe, tiny) -> None:
    """The README's block in order: one run, then several seeds; and all folders are looked at before any is made."""
    assert attnprobe("train", *tiny, "-q").code == 0
    assert attnprobe("train", *tiny, "--seeds", 2, "--together", "-q").code == 0
    outcome = attnprobe("train", *tiny, "--seeds", "5,0", "--together", "-q")
    assert outcome.code == 2
    outcome.complains("runs/textures/s0 is not empty", "--resume")
    assert not Path("runs/textures/s5").exists()
    assert attnprobe("train", *tiny, "--seeds", "5,0", "--together", "-q", "--resume").code == 0


def test_seeds_that_had_not_begun_are_not_taken_for_the_runs_they_replace(attnprobe, tiny, monkeypatch) -> None:
    arguments = ["train", *tiny, "--seeds", 2, "--together", "-q"]
    assert attnprobe(*arguments).code == 0
    earlier = {path: path.read_bytes() for path in Path("runs").rglob("*.pt")}
    arguments += ["-s", "finetune.epochs=2"]
    for stop, code in ((RunError("no luck", hint="try again"), 1), (Interrupted(), 130)):
        with monkeypatch.context() as patch:
            patch.setattr(launched, "run_together", Mock(side_effect=stop))
            outcome = attnprobe(*arguments, "--overwrite")
        assert outcome.code == code
        if code == 1:
            assert {path: path.read_bytes() for path in Path("runs").rglob("*.pt")} == earlier, "nothing was begun"
    assert "Go on with the same command and --resume instead of --overwrite." in outcome.err
    assert not list(Path("runs").glob("*/s*/result.json")), "no earlier result stands for a new run"
    assert attnprobe(*arguments, "--resume").code == 0
    for run in Path("runs/textures").glob("s*"):
        assert load_checkpoint(run / "checkpoints" / "finetuned.pt").run.finetune.epochs == 2
        assert not (run / "replaced-1").exists()


def test_a_continued_run_never_replaces_the_one_it_comes_from(attnprobe, tiny) -> None:
    assert attnprobe("train", *tiny, "-q").code == 0
    source = "runs/textures-s0/checkpoints/pretrained.pt"
    for folder in ("runs/textures-continued-s0", "runs/textures-continued-continued-s0"):
        document = attnprobe("train", *tiny, "--pretrained", source, "--json").document()
        assert document["run_dir"] == folder
        source = document["checkpoints"]["finetuned"]
    kept = Path(source).read_bytes()
    outcome = attnprobe("train", *tiny, "--pretrained", source, "--out", Path(source).parents[1], "--overwrite", "-q")
    assert outcome.code == 2
    outcome.complains("which lies in the folder that --overwrite would replace")
    assert Path(source).read_bytes() == kept
