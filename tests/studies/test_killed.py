"""kill -9 in the middle of a study, then the same command again: the same results as without."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.studies.conftest import STUDY

LONGER = STUDY.replace('"finetune.epochs" = 4', '"finetune.epochs" = 40')


def command(path: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "attnprobe", "study", "run", str(path), "--out", str(out), "--device", "cpu"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_go_on_after_a_blow(study, run_all, tmp_path: Path, blow: signal.Signals) -> None:
    path, out = tmp_path / "killed.toml", tmp_path / "killed"
    path.write_text(LONGER)
    process = subprocess.Popen(command(path, out), env=environment(), stderr=subprocess.PIPE, text=True)
    while not list(out.glob("runs/*/result.json")) or len(list(out.glob("runs/*/metrics.jsonl"))) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(blow)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL), said
    assert ("the same command goes on" in said) == (blow == signal.SIGINT)
    finished = {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/*/result.json")}
    assert 0 < len(finished) < 8
    subprocess.run([*command(path, out), "-q"], env=environment(), check=True, timeout=120)
    again = {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/*/result.json")}
    assert again | finished == again, "what was finished was not done again"
    undisturbed = study(text=LONGER, out=tmp_path / "undisturbed")
    run_all(undisturbed)
    killed = study(text=LONGER, out=out)
    for one, two in zip(undisturbed.outcomes(), killed.outcomes(), strict=True):
        assert one.place == two.place
        assert one.seed == two.seed
        assert one.numbers
        differing = {k for k in one.numbers if one.numbers[k] != two.numbers[k]}
        assert differing <= {"seconds"}
