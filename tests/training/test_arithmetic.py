"""Precision and determinism: what a device lacks is refused, and the process is left as it was."""

import json

import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.run import Engine
from attnprobe.tasks import Split
from attnprobe.training.arithmetic import check_precision, process_settings
from attnprobe.training.buckets import evaluation_batch
from attnprobe.training.distributed import Team, check_own_devices
from attnprobe.training.execute import execute
from attnprobe.training.loop import evaluate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_device_without_the_arithmetic_is_refused_in_one_line(small, monitor, tmp_path, monkeypatch) -> None:
    for precision in ("float32", "bfloat16"):
        check_precision(precision, CPU)
    with pytest.raises(ConfigError, match="tf32 is arithmetic of CUDA devices"):
        execute(small("engine.precision=tf32"), tmp_path / "run", device=CPU, monitor=monitor)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    check_precision("float32", CUDA)
    for precision in ("tf32", "bfloat16"):
        with pytest.raises(ConfigError, match=f"T4 has no arithmetic in {precision}"):
            check_precision(precision, CUDA)


@pytest.mark.parametrize("before", ["highest", "high"])
def test_switches_of_the_process_are_set_and_put_back(before: str) -> None:
    torch.set_float32_matmul_precision(before)
    try:
        with process_settings(Engine(precision="tf32")):
            assert torch.backends.cuda.matmul.allow_tf32
        with process_settings(Engine(deterministic=True)):
            assert not torch.backends.cuda.matmul.allow_tf32  # float32 is float32, whatever was set
            assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == before
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_deterministic_run_on_the_cpu_computes_the_same(small, monitor, tmp_path) -> None:
    numbers = []
    for value in ("true", "false"):
        config = small(f"engine.deterministic={value}", "pretrain.epochs=1", "finetune.epochs=1")
        result = execute(config, tmp_path / value, device=CPU, monitor=monitor)
        numbers.append((result["test_loss"], result["train_loss"]))
        assert json.loads((tmp_path / value / "manifest.json").read_text())["deterministic"] is (value == "true")
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("length", "pairs", "tokens", "batch"),
    [(100, False, 2**19, 1000), (1024, False, 2**19, 512), (16384, False, 2**19, 32), (4000, True, 2**19, 65),
     (65536, False, 2**10, 1)],
)  # fmt: skip
def test_evaluation_batches_hold_so_many_positions(length: int, pairs: bool, tokens: int, batch: int) -> None:
    shape = (3, 2, length) if pairs else (3, length)
    lengths = torch.full(shape[:-1], length)
    split = Split(inputs=torch.zeros(shape, dtype=torch.uint8), labels=torch.zeros(3).long(), lengths=lengths)
    assert evaluation_batch(split, Engine(evaluation_tokens=tokens)) == batch
    if not pairs:
        values = Split(inputs=torch.zeros((*shape, 2), dtype=torch.uint8), labels=torch.zeros(3).long())
        assert evaluation_batch(values, Engine(evaluation_tokens=tokens)) == batch


def test_an_evaluation_in_smaller_batches_is_the_same_up_to_rounding(small) -> None:
    from attnprobe.models import make_model

    config = small()
    data = config.task.load(None)
    model = make_model(config.model, data.spec, "values", seed=0)
    found = [
        evaluate(model, data.validation, config.pretrain.objective, Engine(evaluation_tokens=n), seed=0)
        for n in (2**19, 75)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_processes_that_share_a_gpu_are_refused_in_one_line() -> None:
    check_own_devices(["here a", "here b", "there a"])
    with pytest.raises(ConfigError, match="3 processes share 2 GPUs") as error:
        check_own_devices(["here a", "here b", "here a"])
    assert "start 2 of them" in error.value.hint


class Pair(Team):
    """Two processes of which the other one sends ``other`` in answer to every sum."""

    def __init__(self, other: torch.Tensor) -> None:
        super().__init__()
        self.size, self.other = 2, other

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach() + self.other


def test_gradients_sums_and_the_wish_to_stop_travel_together() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    team = Pair(torch.tensor([1.0, 3.0, 10.0, 6.0, 1.0, 0.0]))
    for wish, stops in ((False, False), (True, False), (False, False), (False, True)):
        assert team.stops(wish) is stops  # the wish of one process at the second step is known to all before the fourth
        weight.grad = torch.tensor([3.0, 5.0])
        sums = team.sum_up([weight], torch.tensor([20.0, 2.0, 4.0]))
        assert sums.tolist() == [30.0, 8.0, 5.0]
        assert weight.grad.tolist() == [0.5, 1.0]  # of the mean loss over both shares
