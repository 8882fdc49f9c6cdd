"""Two processes on one run, through the command line as a person would start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.tasks import Batch
from attnprobe.training.checkpoint import load_checkpoint
from attnprobe.training.distributed import Team

SETTINGS = [
    "task.side=5", "task.n_train=40", "task.n_validation=20", "task.n_test=20", "model.d_model=12", "model.heads=2",
    "pretrain.epochs=2", "finetune.epochs=2", "pretrain.batch_size=10", "finetune.batch_size=10",
]  # fmt: skip
ROOT = Path(__file__).parents[2]


def start(out: Path, processes: int) -> dict:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "attnprobe", "train", "--out", str(out), "--json", "--device", "cpu"]
    command += [part for setting in SETTINGS for part in ("-s", setting)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)  # exactly one document, though there are two processes


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = start(tmp_path / "one", 1), start(tmp_path / "two", 2)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    for a, b in zip(*lines, strict=True):
        for key, value in json.loads(a).items():
            if "loss" in key:
                assert json.loads(b)[key] == pytest.approx(value, rel=1e-6)
    assert lines[0] != lines[1]
    assert one.keys() == two.keys()
    assert one["checkpoints"].keys() == two["checkpoints"].keys()
    for name in one["checkpoints"]:
        states = [load_checkpoint(tmp_path / run / "checkpoints" / f"{name}.pt").state for run in ("one", "two")]
        assert states[0].keys() == states[1].keys()
        for key, tensor in states[0].items():
            if not key.endswith("attention.k.bias"):  # moved by rounding alone: softmax does not see it
                assert torch.allclose(tensor, states[1][key], rtol=0, atol=1e-4), key


def make_team(rank: int, size: int) -> Team:
    team = Team()
    team.rank, team.size = rank, size
    return team


def test_shares_make_up_the_batch() -> None:
    batch = Batch(inputs=torch.arange(12).view(6, 2), labels=torch.arange(6), sample=torch.arange(6) + 7)
    shares = [make_team(rank, 3).share(batch) for rank in range(3)]
    assert torch.equal(torch.stack([s.sample for s in shares], 1).flatten(), batch.sample)
    assert all(len(share) == 2 for share in shares)
    assert make_team(0, 1).share(batch) is batch


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    make_team(0, 2).check(10)
    with pytest.raises(ConfigError, match="cannot be shared by 3 processes"):
        make_team(0, 3).check(10)
