"""Precision and determinism: what a device lacks is refused, and the process is left as it was."""

import json

import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.run import Engine
from attnprobe.training.execute import execute
from attnprobe.training.updates.arithmetic import check_precision, process_settings

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
