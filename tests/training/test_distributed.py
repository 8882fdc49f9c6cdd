"""Two processes on one run, through the command line as a person would start it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from attnprobe import presets, run
from attnprobe.cli.screen.progress import TrainingProgress
from attnprobe.config import override
from attnprobe.errors import ConfigError
from attnprobe.models import make_model
from attnprobe.objectives import Classification, MaskedReconstruction
from attnprobe.tasks import Batch
from attnprobe.training.distributed import World, check_own_devices, local_device
from attnprobe.training.evaluation import evaluate, means
from attnprobe.training.execute import execute
from attnprobe.training.saved.checkpoint import load_checkpoint
from tests.training.equality import assert_equal_runs

SETTINGS = [
    "task.side=5", "task.n_train=40", "task.n_validation=20", "task.n_test=20", "model.d_model=12", "model.heads=2",
    "pretrain.epochs=2", "finetune.epochs=2", "pretrain.batch_size=10", "finetune.batch_size=10",
]  # fmt: skip
ROOT = Path(__file__).parents[2]


def launch(out: Path, processes: int, *more: str) -> subprocess.Popen[str]:
    """In a session of its own, so that a signal can reach all of its processes as Ctrl-C in a terminal does."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "attnprobe", "train", "--out", str(out), "--json", "--device", "cpu"]
    command += [part for setting in SETTINGS for part in ("-s", setting)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *more], env=environment, text=True, stdout=-1, stderr=-1, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)  # exactly one document, though there are two processes


def alone(out: Path, *more: str) -> dict:
    config = run.from_table(override(presets.read_table("textures"), [*SETTINGS, *more]))
    return execute(config, out, device=torch.device("cpu"), monitor=TrainingProgress(quiet=True))


def interrupt(process: subprocess.Popen[str], *folders: Path) -> str:
    """Ctrl-C once a run has finished three epochs; what was said."""
    deadline = time.monotonic() + 120
    while not any(epochs(folder) >= 3 for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0, "it ended before it could be interrupted"
    assert any((folder / "resume.pt").exists() for folder in folders), err
    return err


def epochs(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = alone(tmp_path / "one"), finish(launch(tmp_path / "two", 2))
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


LONG = ["-s", "pretrain.epochs=50"]


@pytest.mark.slow
def test_two_processes_stop_at_ctrl_c_and_go_on_exactly(tmp_path: Path) -> None:
    said = interrupt(launch(tmp_path / "stopped", 2, *LONG), tmp_path / "stopped")
    assert said.count("interrupted; saved in") == 1  # though torchrun tells both processes, and twice
    assert 3 <= epochs(tmp_path / "stopped") < 50
    finish(launch(tmp_path / "stopped", 2, *LONG, "--resume"))
    finish(launch(tmp_path / "through", 2, *LONG))
    assert_equal_runs(tmp_path / "stopped", tmp_path / "through")


@pytest.mark.slow
def test_seeds_side_by_side_stop_at_ctrl_c_and_go_on_exactly(tmp_path: Path) -> None:
    folders = [tmp_path / "stopped" / seed for seed in ("s0", "s1")]
    long = ["-s", "pretrain.epochs=60", "--seeds", "2"]
    assert interrupt(launch(tmp_path / "stopped", 1, *long), *folders).count("interrupted; saved in") == 1
    finish(launch(tmp_path / "stopped", 1, *long, "--resume"))
    for seed, folder in enumerate(folders):
        through = tmp_path / "through" / folder.name
        alone(through, "pretrain.epochs=60", f"seed={seed}")
        assert_equal_runs(folder, through)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to see when children start")
def test_ctrl_c_while_the_workers_still_start_is_no_crash(tmp_path: Path) -> None:
    process = launch(tmp_path / "run", 1, "--seeds", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_processes_are_started_with_signals_held_back() -> None:
    """In a fresh process, whose first start brings up what keeps track of shared memory."""
    code = (
        "import signal; from multiprocessing import resource_tracker; from attnprobe.launch import workers\n"
        "with workers._deaf_when_started():\n"
        "    resource_tracker.ensure_running()\n"
        "    assert set(workers.signals.SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make_world(rank: int, size: int) -> World:
    world = World()
    world.rank, world.size = rank, size
    return world


def test_shares_make_up_the_batch() -> None:
    batch = Batch(inputs=torch.arange(12).view(6, 2), labels=torch.arange(6), sample=torch.arange(6) + 7)
    shares = [make_world(rank, 3).shard(batch) for rank in range(3)]
    assert torch.equal(torch.stack([s.sample for s in shares], 1).flatten(), batch.sample)
    assert all(len(share) == 2 for share in shares)
    assert make_world(0, 1).shard(batch) is batch


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    make_world(0, 2).check(10)
    with pytest.raises(ConfigError, match="cannot be shared by 3 processes"):
        make_world(0, 3).check(10)


class OneOf(World):
    """One process's part of a sum that is put together afterwards."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size, self.parts = rank, size, []

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        self.parts.append(tensor)
        return tensor


@pytest.mark.parametrize("n", [1, 2, 3, 29])
@pytest.mark.parametrize("objective", [Classification(), MaskedReconstruction()])
def test_processes_share_an_evaluation(n: int, objective, small) -> None:
    config = small(f"task.n_validation={n}", "engine.evaluation_batch=7")
    data = config.task.load(None)
    model, split = make_model(config.model, data.spec, "values", seed=0), data.validation
    wanted = evaluate(model, split, objective, config.engine, seed=3)
    world = [OneOf(rank, 3) for rank in range(3)]
    for one in world:
        evaluate(model, split, objective, config.engine, seed=3, world=one)
    parts = [one.parts[0] for one in world]
    assert sum(float(part[1]) > 0 for part in parts) == min(n, 3)  # everybody has something to do if there is enough
    assert means(torch.stack(parts).sum(0), objective) == pytest.approx(wanted, rel=1e-6)


def test_a_gpu_for_every_process_and_no_key_needed(monkeypatch) -> None:
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert local_device("auto") == "auto"  # no GPU here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("auto") == "cuda:0"
    monkeypatch.setenv("RANK", "3")
    assert local_device("cuda") == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert local_device("cuda") == "cuda:0"
    assert local_device("cpu") == "cpu"
    assert local_device("cuda:1") == "cuda:1"


def test_processes_that_share_a_gpu_are_refused_in_one_line() -> None:
    check_own_devices(["here a", "here b", "there a"])
    with pytest.raises(ConfigError, match="3 processes share 2 GPUs") as error:
        check_own_devices(["here a", "here b", "here a"])
    assert "start 2 of them" in error.value.hint


class Pair(World):
    """Two processes of which the other one sends ``other`` in answer to every sum."""

    def __init__(self, other: torch.Tensor) -> None:
        super().__init__()
        self.size, self.other = 2, other

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach() + self.other


def test_gradients_sums_and_the_wish_to_stop_travel_together() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    world = Pair(torch.tensor([1.0, 3.0, 10.0, 6.0, 1.0, 0.0]))
    for wish, stops in ((False, False), (True, False), (False, False), (False, True)):
        assert world.stops(wish) is stops  # a wish at the second step is known to all before the fourth
        weight.grad = torch.tensor([3.0, 5.0])
        sums = world.reduce_gradients([weight], torch.tensor([20.0, 2.0, 4.0]))
        assert sums.tolist() == [30.0, 8.0, 5.0]
        assert weight.grad.tolist() == [0.5, 1.0]  # of the mean loss over both shares
