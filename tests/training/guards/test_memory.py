"""Too little memory is one line that names a size; with that size the run goes through, below the same limit."""

import os
import re
import subprocess
import sys

import pytest
import torch

from attnprobe.errors import RunError
from attnprobe.machine import free_memory
from attnprobe.training.ensembles.ensemble import together
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution
from attnprobe.training.guards import memory
from attnprobe.training.loop import Trainer
from attnprobe.training.saved.run_directory import RunDirectory

CPU = torch.device("cpu")
ROOM = 300 * 2**20  # bytes above what Python and torch have taken
LIMITED = f"""
import resource, sys, tempfile
from pathlib import Path
import torch
from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.errors import explain
from attnprobe.training.execute import execute
from attnprobe.training.monitor import Silent

torch.set_num_threads(1)
table = override(presets.read_table("textures"), sys.argv[1].split())
del table["pretrain"]
config = run.from_table(table)
config.task.load().to(torch.device("cpu"))
torch.ones(9, 9, requires_grad=True).matmul(torch.ones(9, 9)).sum().backward()  # the threads of the backward pass
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {ROOM},) * 2)
try:
    with tempfile.TemporaryDirectory() as folder:
        execute(config, Path(folder) / "run", device=torch.device("cpu"), monitor=Silent())
    print("finished")
except Exception as error:
    told = explain(error)
    print(f"{{type(told).__name__}}: {{told}} ({{told.hint}})")
"""
SIZES = (
    "task.side=16 task.n_train=256 task.n_validation=256 task.n_test=8 model.layers=2 model.d_model=64 model.heads=2 "
    "model.d_mlp=256 finetune.epochs=1"
)


def limited(settings: str) -> str:
    found = subprocess.run([sys.executable, "-c", LIMITED, settings], capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux's")
@pytest.mark.parametrize(
    ("phase", "given"),
    [
        ("finetune.batch_size", "finetune.batch_size=256 engine.evaluation_tokens=1024"),
        pytest.param(
            "engine.evaluation_tokens",
            "finetune.batch_size=8 model.d_mlp=2048",
            marks=pytest.mark.skipif(
                os.environ.get("ATTNPROBE_TEST_MEMORY") != "1",
                reason="fails now and then on a busy machine: set ATTNPROBE_TEST_MEMORY=1 on an idle one",
            ),
        ),
    ],
)
def test_the_named_size_fits_below_the_same_limit(phase: str, given: str) -> None:
    told = limited(f"{SIZES} {given}")
    assert "\n" not in told
    assert told.startswith("RunError: the finetuned phase has not enough memory: ")
    named = re.search(r"-s (\S+)=(\d+)", told)
    assert named is not None, told
    assert named[1] == phase
    assert int(named[2]) >= 2, "not merely the smallest there is"
    assert limited(f"{SIZES} {given} {named[1]}={named[2]}") == "finished"


def lacking(self, batch, epoch):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7000 bytes. Error code 12")


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (2**40, r"-s pretrain.batch_size=5 \(a step of 11 needs .* MiB\)"),  # something else has taken it
        (0, "even one sequence needs more: choose a smaller model"),
        (None, "-s pretrain.batch_size=5"),
    ],
)
def test_what_is_said_by_what_is_free(small, monitor, tmp_path, monkeypatch, free, said) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    monkeypatch.setattr(Trainer, "update", lacking)
    with pytest.raises(RunError, match="pretrained phase has not enough memory: 7000 bytes were asked for") as caught:
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor)
    assert re.search(said, caught.value.hint)


def test_ensembles_are_told_to_go_side_by_side(small, monitor, tmp_path, monkeypatch) -> None:
    members = [
        Execution(
            config=small(f"seed={seed}"), directory=RunDirectory(tmp_path / str(seed)), device=CPU, monitor=monitor,
            in_group=True,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    monkeypatch.setattr("attnprobe.training.ensembles.ensemble.Ensemble._losses", lambda self, u: lacking(self, u, 0))
    with pytest.raises(RunError, match="not enough memory") as caught:
        together([updates(member) for member in members])
    assert "without --together" in caught.value.hint
    assert not (tmp_path / "1" / "resume.next.pt").exists()
    assert (tmp_path / "2" / "resume.next.pt").exists(), "the others save"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux's")
def test_a_limit_on_the_process_counts() -> None:
    code = (
        "import resource, torch; from attnprobe.machine import free_memory; device = torch.device('cpu')\n"
        "before = free_memory(device); resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\n"
        "after = free_memory(device); resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**36))\n"
        "assert 0 < free_memory(device) <= min(after, 2**33), (before, after)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert (free_memory(CPU) or 0) > 0
