"""What of the GPU suite a machine without one can check: that it says so, that its parts run on small problems, and
that nothing that goes wrong in a row costs another one.
"""

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from attnprobe.bench import gpu, gpu_rows
from attnprobe.bench.gpu import Limits, part_rows, run_gpu_suite
from attnprobe.bench.gpu_rows import Failure, Plan
from attnprobe.bench.problem import Problem
from attnprobe.cli.bench import bench
from attnprobe.errors import RunError
from attnprobe.files import to_json
from attnprobe.models import TransformerConfig
from attnprobe.run import Engine
from attnprobe.tasks.listops.task import ListOps

CPU = torch.device("cpu")
SMALL = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)
PLAN = Plan(
    shapes=(dataclasses.replace(Plan().shapes[-1], sequences=2, heads=3, length=37, d_head=5),),
    short=SMALL,
    long=dataclasses.replace(SMALL, length=17),
    epochs=(("image", SMALL, 7),),
    members=(1, 2),
    steps=20,
    task=ListOps(min_length=10, max_length=60, max_depth=4, max_args=4, n_train=120, n_validation=1, n_test=1),
    model=TransformerConfig(d_model=12, heads=2, d_mlp=17),
    batch=5,
)


def test_it_is_refused_without_a_gpu(tmp_path) -> None:
    with pytest.raises(RunError, match="needs a CUDA device"):
        bench(suite="gpu", out=tmp_path / "bench", device="cpu")
    assert not (tmp_path / "bench").exists()


def rows_of(name: str) -> list[gpu_rows.Row]:
    return [row() for row in gpu_rows.PARTS[name](PLAN, CPU)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler that is reset
def test_every_part_measures_small_problems_and_says_what_it_could_not_measure(monkeypatch) -> None:
    kernels, graph, epochs, paddings, ensembles = (rows_of(name) for name in list(gpu_rows.PARTS)[:5])
    assert kernels[0]["cudnn"] == "refused"
    assert kernels[0]["flash"] > 0
    assert 0 < kernels[0]["flash, error"] < 2e-2
    assert kernels[0]["chosen"] == "flash"
    assert [row["run"] for row in graph] == ["eager again", "graph"] * 2
    assert graph[0]["losses differ by"] == graph[0]["parameters differ by"] == 0
    assert "needs a CUDA device" in graph[1]["losses differ by"]  # an eager time never stands in for a graph's
    assert epochs[0]["eager, s/epoch"] == pytest.approx(epochs[0]["eager, ms/step"] * 7 / 1000)
    assert isinstance(epochs[0]["graph, ms/step"], Failure)
    assert [row["members"] for row in ensembles] == 2 * ["alone, eager", "alone, graph", "1", "2"]
    assert ensembles[3]["ms/step and member"] == ensembles[3]["ms/step"] / 2
    assert [row["batches"] for row in paddings] == ["padded", "buckets"]
    assert all(row["s/epoch"] > 0 and row["measured steps"] == 20 for row in paddings)
    monkeypatch.setattr(gpu_rows, "_step", lambda *_: 1.0)
    assert rows_of("engines, ms/step")[1]["eager float32"] > 0


def test_a_failed_capture_never_gives_a_time(monkeypatch) -> None:
    ours = gpu_rows.start(SMALL, CPU, Engine())
    ours.trainer.stepper.failure = "not permitted"
    monkeypatch.setattr(gpu_rows, "start", lambda *_: ours)
    assert gpu_rows.attempt(lambda: gpu_rows._step(SMALL, CPU, "graph", 3)) == "RuntimeError: not permitted"


def test_the_suite_measures_what_the_targets_are_about_and_fits_its_time() -> None:
    plan = Plan()
    assert plan.epochs[0][1].tokens == 32 * 1024
    assert plan.steps >= 200
    assert plan.task.n_train // plan.batch >= plan.steps
    assert gpu.BUDGET + gpu.START <= 360  # what is left of eight minutes is for the tests


def odd_rows(plan: Plan, device: torch.device) -> gpu_rows.Rows:
    def fails() -> gpu_rows.Row:
        raise RuntimeError("an illegal memory access\nand more")

    return [
        lambda: {"row": 0, "process": os.getpid()},
        lambda: {"row": 1, "process": os.getpid(), "ms": Failure("RuntimeError: out of memory")},
        lambda: {"row": 2, "process": os.getpid()},
        fails,
        lambda: os._exit(9),
        lambda: time.sleep(120) or {},
        lambda: {"row": 6, "process": os.getpid()},
    ]


def measure_odd_rows(answers, name: str, plan: Plan, device: str, first: int) -> None:
    gpu_rows.PARTS[name] = odd_rows
    gpu.PARTS[name] = odd_rows
    gpu.measure_rows(answers, name, plan, device, first)


def test_a_row_that_fails_dies_or_hangs_costs_no_other_row(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "measure_rows", measure_odd_rows)
    deadline = time.perf_counter() + 500
    rows = list(part_rows("odd", PLAN, CPU, Limits(row=10.0, start=120.0), deadline))
    assert [row["row"] for row in rows] == [
        0, 1, 2, "RuntimeError: an illegal memory access", "the process died (exit code 9)", "took longer than 10 s", 6,
    ]  # fmt: skip
    assert rows[0]["process"] == rows[1]["process"] != rows[2]["process"]  # a failed cell ends its process
    late = list(part_rows("odd", PLAN, CPU, Limits(), time.perf_counter() - 1))
    assert late == [{"not measured": "left out: the time was over"}]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so would a test run that was started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_is_printed_when_the_suite_is_stopped(number: int, monkeypatch) -> None:
    def stop(text: str) -> None:
        if "graph against eager" in text:
            signal.raise_signal(number)

    def rows(name: str, *_):
        yield {"kernel": name, "ms": 1.5}
        yield {"kernel": "never", "ms": 2.5}

    monkeypatch.setattr(gpu, "part_rows", rows)
    assert threading.current_thread() is threading.main_thread()
    document, page = run_gpu_suite("attnprobe bench --suite gpu", device=CPU, say=stop, plan=PLAN)
    tables = list(json.loads(to_json(document))["tables"].values())
    assert [len(table) for table in tables] == [2, 1, 1, 1, 1, 1]
    assert tables[2] == [{"not measured": "stopped"}]
    assert document["stopped"] is True
    assert "| attention kernels, ms forward and backward | 1.5 |" in page
    assert page.endswith("Stopped before the end.\n")


def test_a_whole_suite_in_processes_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "PARTS", dict(list(gpu.PARTS.items())[:1]))
    document, page = run_gpu_suite("attnprobe bench --suite gpu", device=CPU, say=lambda text: None, plan=PLAN)
    assert document["stopped"] is False
    assert document["tables"]["attention kernels, ms forward and backward"][0]["chosen"] == "flash"
    assert "| batch x heads |" in page


def test_a_failing_cell_keeps_its_reason() -> None:
    def fail() -> float:
        raise RuntimeError("out of memory\nmore")

    assert gpu_rows.attempt(fail) == "RuntimeError: out of memory"


def test_equal_runs_do_not_differ_and_others_do(monkeypatch) -> None:
    assert gpu_rows.differences(SMALL, CPU, Engine(attention="math"), "eager", steps=4) == (0.0, 0.0)
    started = gpu_rows.start

    def other(problem: Problem, device: torch.device, engine: Engine):
        made.append(started(problem, device, engine))
        if len(made) == 2:
            with torch.no_grad():
                made[1].model.blocks[0].up.bias += 1e-3
        return made[-1]

    made = []
    monkeypatch.setattr(gpu_rows, "start", other)
    losses, parameters = gpu_rows.differences(SMALL, CPU, Engine(), "eager", steps=4)
    assert losses > 0
    assert parameters > 1e-4
