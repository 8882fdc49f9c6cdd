"""Memory and time that `train --dry-run` foretells, against what a step really takes."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.models import make_model
from attnprobe.run import RunConfig
from attnprobe.tasks import Data, Outline
from attnprobe.training import estimate
from attnprobe.training.estimate import count_memory, measure_duration
from attnprobe.training.loop import Trainer
from attnprobe.training.walk import random_split, sizes_of

FACTOR = 1.5  # between what is foretold and what a process takes more
LARGE = [
    "task.side=20", "model.layers=3", "model.d_model=64", "model.d_mlp=256", "pretrain.batch_size=48",
    "finetune.batch_size=48",
]  # fmt: skip
CODE = f"""
import sys
from tests.training.test_estimate import *
name, mixer = sys.argv[1:]
config, phase, data, target = prepared(name, {LARGE} + ["model.mixer=" + mixer])
memory = count_memory(config, phase, data, target)
warm_up, trainer = (trainer_of(config, phase, data, target, n) for n in (1, phase.batch_size))
warm_up.update(warm_up.batches(0)[0], 0)
inputs = trainer.batches(0)[0]
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
trainer.update(inputs, 0)
print(memory.gradients + memory.activations + memory.optimizer, status("VmHWM") - before)
"""


def status(what: str) -> int:
    """Bytes, as Linux counts this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


def prepared(name: str, changes: list[str], preset: str = "textures") -> tuple:
    config = run.from_table(override(presets.read_table(preset), changes))
    phase = config.phases()[name]
    data = config.task.outline()
    assert data is not None
    return config, phase, data, run.reconstruction_target(config, data.spec, config.pretrain)


def trainer_of(config: RunConfig, phase: run.Phase, data: Outline, target: str, n: int) -> Trainer:
    split = random_split(data, n, torch.device("cpu"))
    model = make_model(config.model, data.spec, target, seed=0)  # pyright: ignore[reportArgumentType]
    sample = Data(spec=data.spec, train=split, validation=split, test=split)
    return Trainer(model, sample, "estimate", dataclasses.replace(phase, batch_size=n), config.engine, seed=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("name", "mixer"),
    [("pretrained", "attention"), ("finetuned", "attention"), ("finetuned", "s4d"), ("finetuned", "linear")],
)
def test_peak_memory_of_a_step(name: str, mixer: str) -> None:
    """In a process of its own, which has made a small step before."""
    finished = subprocess.run([sys.executable, "-c", CODE, name, mixer], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    foretold, measured = map(int, finished.stdout.split())
    assert measured > 100 * 2**20
    assert 1 / FACTOR < foretold / measured < FACTOR


def test_activations_by_hand() -> None:
    """One layer, no hidden positions: what autograd keeps is at least what the formulas of a block need."""
    config, phase, data, target = prepared("finetuned", ["task.side=7", "finetune.batch_size=11"])
    memory = count_memory(config, phase, data, target)
    tokens, d, mlp = 11 * 49, config.model.d_model, config.model.d_mlp
    kept = 4 * tokens * (8 * d + 2 * mlp)  # two norms' inputs and outputs, q, k, v, mixed; before and after the GELU
    assert kept <= memory.activations <= 2.5 * kept
    parameters = sum(p.numel() for p in make_model(config.model, data.spec, target, seed=0).parameters())
    assert memory.parameters == memory.gradients == memory.best == 4 * parameters
    assert memory.optimizer == 8 * parameters
    assert memory.total >= memory.parameters + memory.optimizer + memory.evaluation + memory.best + memory.data


def test_what_makes_memory_grow() -> None:
    def activations(*changes: str) -> int:
        config, phase, data, target = prepared("pretrained", ["task.side=7", *changes])
        return count_memory(config, phase, data, target).activations

    once = activations()
    assert activations("pretrain.batch_size=100") == pytest.approx(2 * once, rel=0.05)
    assert activations("model.layers=4") > 2 * once
    assert activations("engine.precision=bfloat16") < once
    scores = 4 * 50 * 4 * 49 * 49  # bytes of one matrix of all scores
    assert activations("engine.attention=math") > once + 0.9 * scores  # less what dies before the peak


def test_time_is_close_to_that_of_real_steps() -> None:
    config, phase, data, target = prepared("pretrained", [])
    found = measure_duration(
        config, phase, data, target, count_memory(config, phase, data, target), torch.device("cpu")
    )
    trainer = trainer_of(config, phase, data, target, 50)
    inputs, times = trainer.batches(0)[0], []
    for _ in range(8):
        start = time.perf_counter()
        trainer.update(inputs, 0)
        times.append(time.perf_counter() - start)
    assert found.seconds_per_step is not None
    assert 1 / 5 < found.seconds_per_step / sorted(times)[3] < 5  # machines that do other work as well are uneven
    assert found.seconds is not None
    assert found.seconds > found.seconds_per_step * 1000 // 50 * phase.epochs


@pytest.mark.parametrize("changes", [["task.side=128"], ["task.side=32"]])
def test_what_is_too_large_is_not_timed(changes: list[str], monkeypatch) -> None:
    if changes == ["task.side=32"]:
        monkeypatch.setattr(estimate, "free_memory", lambda device: 2**20)
    else:
        monkeypatch.setattr(estimate, "SECONDS_OF_ONE", 0.5)
        monkeypatch.setattr(estimate, "free_memory", lambda device: None)
    config, phase, data, target = prepared("pretrained", changes, "pathx")
    memory = count_memory(config, phase, data, target)
    started = time.process_time()
    found = measure_duration(config, phase, data, target, memory, torch.device("cpu"))
    assert found.seconds is None
    assert found.note.startswith("not timed")
    assert time.process_time() - started < 10


def test_every_generated_preset_can_be_estimated_without_its_data() -> None:
    for preset in presets.descriptions():
        config = run.from_table(presets.read_table(preset))
        if config.model.backbone is not None:
            continue  # its sizes stand in its source, and are read by the extra
        for phase in config.phases().values():
            data = config.task_of(phase).outline()
            if data is not None:
                memory = count_memory(
                    config, phase, data, run.reconstruction_target(config, data.spec, config.pretrain)
                )
                assert memory.activations > 0
                assert memory.data >= sum(sizes_of(data).values()) * data.spec.length
