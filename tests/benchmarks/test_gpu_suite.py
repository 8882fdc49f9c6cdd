"""What of the GPU suite a machine without one can check: that it says so, and that its parts run on small problems."""

import pytest
import torch

from attnprobe.bench import gpu
from attnprobe.bench.problem import Problem
from attnprobe.cli.bench import SuiteName, bench
from attnprobe.errors import RunError

CPU = torch.device("cpu")
SMALL = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)


def test_it_is_refused_without_a_gpu(tmp_path) -> None:
    with pytest.raises(RunError, match="needs a CUDA device"):
        bench(suite=SuiteName.gpu, out=tmp_path / "bench", device="cpu")
    assert not (tmp_path / "bench").exists()


def test_epochs_and_ensembles_on_a_small_problem(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "EPOCHS", {"small": (SMALL, 7)})
    monkeypatch.setattr(gpu, "SHORT", SMALL)
    monkeypatch.setattr(gpu, "IMAGE", SMALL)
    (epoch,) = gpu.epochs(CPU)
    assert epoch["seconds per epoch"] == pytest.approx(epoch["ms/step"] * 7 / 1000)
    assert epoch["measured steps"] == 200
    rows = gpu.ensembles(CPU)
    assert [row["members"] for row in rows] == 2 * [1, 2, 4, 8, 16]
    assert all(row["times faster"] > 0 for row in rows)


def test_a_failing_cell_keeps_its_reason() -> None:
    def fail() -> float:
        raise RuntimeError("out of memory\nmore")

    assert gpu.attempt(fail) == "RuntimeError: out of memory"
