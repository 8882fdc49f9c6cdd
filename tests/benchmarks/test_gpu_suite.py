"""What of the GPU suite a machine without one can check: that it says so, and that its parts run on small problems."""

import dataclasses
import json
import time

import pytest
import torch

from attnprobe.bench import gpu
from attnprobe.bench.lengths import Lengths
from attnprobe.bench.problem import Problem
from attnprobe.cli.bench import SuiteName, bench
from attnprobe.errors import RunError
from attnprobe.files import to_json
from attnprobe.models import TransformerConfig
from attnprobe.run import Engine
from attnprobe.tasks.listops.task import ListOps

CPU = torch.device("cpu")
SMALL = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)
PADDING = Lengths(
    task=ListOps(min_length=10, max_length=60, max_depth=4, max_args=4, n_train=120, n_validation=1, n_test=1),
    model=TransformerConfig(d_model=12, heads=2, d_mlp=17),
    batch=5,
    steps=3,
    rounds=2,
)


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "EPOCHS", {"small": (SMALL, 7)})
    monkeypatch.setattr(gpu, "LADDER_PROBLEMS", (SMALL, dataclasses.replace(SMALL, batch=2)))
    monkeypatch.setattr(gpu, "LADDER", ("eager", "graph"))  # compiling takes a minute
    monkeypatch.setattr(gpu, "SHORT", SMALL)
    monkeypatch.setattr(gpu, "IMAGE", SMALL)
    monkeypatch.setattr(
        gpu, "SHAPES", (dataclasses.replace(gpu.SHAPES[-1], sequences=2, heads=3, length=37, d_head=5),)
    )
    monkeypatch.setattr(gpu, "PADDING", PADDING)


def test_it_is_refused_without_a_gpu(tmp_path) -> None:
    with pytest.raises(RunError, match="needs a CUDA device"):
        bench(suite=SuiteName.gpu, out=tmp_path / "bench", device="cpu")
    assert not (tmp_path / "bench").exists()


@pytest.mark.usefixtures("small")
def test_every_part_runs_on_small_problems_and_says_what_it_could_not_measure() -> None:
    said: list[str] = []
    document, page = gpu.run_gpu_suite("attnprobe bench --suite gpu", device=CPU, say=said.append)
    tables = json.loads(to_json(document))["tables"]
    assert list(tables) == said
    kernels, graph, epochs, ensembles, paddings, ladder = tables.values()
    assert kernels[0]["cudnn"] == "refused"
    assert kernels[0]["flash"] > 0
    assert kernels[0]["chosen"] == "flash"
    assert [row["run"] for row in graph] == ["eager again", "graph"] * 2
    assert graph[0]["losses differ by"] == graph[0]["parameters differ by"] == 0
    assert "needs a CUDA device" in graph[1]["losses differ by"]  # an eager time never stands in for a graph's
    assert epochs[0]["eager, s/epoch"] == pytest.approx(epochs[0]["eager, ms/step"] * 7 / 1000)
    assert epochs[0]["measured steps"] == 200
    assert "needs a CUDA device" in epochs[0]["graph, ms/step"]
    assert [row["members"] for row in ensembles] == 2 * [1, 2, 4, 8, 16]
    assert all(
        row["times faster than eager runs"] > 0 and row["times faster than graph runs"] == "" for row in ensembles
    )
    assert [row["batches"] for row in paddings][:2] == ["padded, as published", "buckets"]
    assert all(row["s/epoch"] > 0 for row in paddings)
    assert paddings[0]["measured steps"] == 6
    assert ladder[1]["eager bfloat16"] > 0
    assert "| task | attention | measured steps |" in page


def test_the_suite_measures_what_the_targets_are_about() -> None:
    assert gpu.EPOCHS["image"][0].tokens == 32 * 1024
    assert gpu.STEPS >= 200
    assert gpu.PADDING.steps * gpu.PADDING.rounds >= 200
    assert gpu.PADDING.task.n_train // gpu.PADDING.batch // gpu.PADDING.steps > gpu.PADDING.rounds  # no batch twice


@pytest.mark.usefixtures("small")
def test_time_that_is_over_and_a_failing_part_are_said() -> None:
    rows = gpu.within(gpu.epochs(CPU), time.perf_counter() - 1)
    assert rows == [{"not measured": "left out: the time was over"}]

    def failing():
        yield {"task": "one", "ms": 1.0}
        raise RuntimeError("out of memory\nmore")

    assert gpu.within(failing(), time.perf_counter() + 60)[1] == {"task": "RuntimeError: out of memory"}


def test_a_failing_cell_keeps_its_reason() -> None:
    def fail() -> float:
        raise RuntimeError("out of memory\nmore")

    assert gpu.attempt(fail) == "RuntimeError: out of memory"


def test_equal_runs_do_not_differ_and_others_do(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "SHORT", SMALL)
    assert gpu.differences(CPU, Engine(attention="math"), "eager", steps=4) == (0.0, 0.0)
    started = gpu.start

    def other(problem: Problem, device: torch.device, engine: Engine):
        made.append(started(problem, device, engine))
        if len(made) == 2:
            with torch.no_grad():
                made[1].model.blocks[0].up.bias += 1e-3
        return made[-1]

    made = []
    monkeypatch.setattr(gpu, "start", other)
    losses, parameters = gpu.differences(CPU, Engine(), "eager", steps=4)
    assert losses > 0
    assert parameters > 1e-4
