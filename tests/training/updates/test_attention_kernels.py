"""The attention kernel of a run: measured, pinned, recorded, and taken over by a resumed run."""

import dataclasses
import json
import math
import time

import pytest
import torch
import torch.nn.functional as F

from attnprobe.errors import ConfigError
from attnprobe.run import Engine
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.updates import attention_kernels
from attnprobe.training.updates.attention_kernels import (
    KERNELS,
    Shape,
    choose_attention,
    fastest,
    milliseconds,
    pinned,
    shape_of,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = Shape(sequences=3, heads=2, length=37, d_head=5, precision="float32", masked=False, causal=False)
FUSED = "ScaledDotProductFlashAttentionForCpuBackward0"


@pytest.fixture(autouse=True)
def _no_trial_is_remembered() -> None:
    fastest.cache_clear()
    attention_kernels.deviation.cache_clear()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_of_a_cpu_are_measured_and_others_refuse(masked: bool, causal: bool, precision: str) -> None:
    shape = dataclasses.replace(SHAPE, masked=masked, causal=causal, precision=precision)
    times = {kernel: milliseconds(kernel, shape, CPU) for kernel in KERNELS}
    assert {kernel for kernel, t in times.items() if t is not None} == {"flash", "math"}
    assert min(t for t in times.values() if t is not None) > 0


def test_the_fastest_wins_near_ties_go_to_the_first_and_math_is_what_remains(monkeypatch) -> None:
    times = {"cudnn": None, "flash": 1.09, "efficient": 1.0}
    monkeypatch.setattr(attention_kernels, "milliseconds", lambda kernel, shape, device: times[kernel])
    assert fastest(("cudnn", "flash", "efficient"), SHAPE, CPU) == "flash"
    assert fastest(("efficient", "flash"), SHAPE, CPU) == "efficient"
    times["flash"] = 1.2
    assert fastest(("cudnn", "flash", "efficient"), SHAPE, CPU) == "flash"  # tried once per process
    fastest.cache_clear()
    assert fastest(("cudnn", "flash", "efficient"), SHAPE, CPU) == "efficient"
    assert fastest(("cudnn",), SHAPE, CPU) == "math"


def test_a_real_trial_is_short_and_prefers_the_kernel_without_a_stored_pattern() -> None:
    shape = dataclasses.replace(SHAPE, sequences=2, length=1024, d_head=16, masked=True)
    start = time.process_time()
    assert fastest(("math", "flash"), shape, CPU) == "flash"  # on the CPU by a factor, not by a hair
    assert time.process_time() - start < 2.0
    assert choose_attention(Engine(), shape, CPU).kernel == "flash"


@pytest.mark.parametrize(("kernel", "fused"), [("auto", True), ("flash", True), ("math", False), ("cudnn", True)])
def test_a_pinned_kernel_is_the_one_used_and_another_where_it_refuses(kernel, fused: bool) -> None:
    q, k, v = (
        torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(i), requires_grad=True) for i in range(3)
    )
    with pinned(kernel):
        output = F.scaled_dot_product_attention(q, k, v)
    assert output.grad_fn is not None
    assert (output.grad_fn.name() == FUSED) == fused
    assert F.scaled_dot_product_attention(q, k, v).grad_fn.name() == FUSED  # nothing stays pinned


@pytest.mark.parametrize("kernel", ["auto", "flash", "efficient", "math"])
def test_cudnn_is_never_a_kernel_that_nobody_asked_for(kernel) -> None:
    with pinned(kernel):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_what_was_asked_for_or_recorded_is_not_measured(monkeypatch) -> None:
    assert choose_attention(Engine(attention="math"), SHAPE, CPU).kernel == "math"
    assert choose_attention(Engine(), SHAPE, CPU, earlier="math").kernel == "math"
    assert choose_attention(Engine(), SHAPE, CPU, earlier="cudnn").kernel == "flash"  # begun on a GPU
    with pytest.raises(ConfigError, match="attention by 'cudnn' does not work here"):
        choose_attention(Engine(attention="cudnn"), SHAPE, CPU)
    monkeypatch.setattr(attention_kernels, "milliseconds", lambda kernel, shape, device: 1.0)
    monkeypatch.setattr(attention_kernels, "deviation", lambda kernel, shape, device: 1e-6)
    assert choose_attention(Engine(), SHAPE, CUDA).kernel == "cudnn"
    assert choose_attention(Engine(), SHAPE, CUDA, earlier="efficient").kernel == "efficient"


def test_under_a_mask_or_deterministic_kernels_that_cannot_be_trusted_are_not_tried(monkeypatch) -> None:
    monkeypatch.setattr(attention_kernels, "milliseconds", lambda kernel, shape, device: 1.0)
    monkeypatch.setattr(attention_kernels, "deviation", lambda kernel, shape, device: 1e-6)
    masked = dataclasses.replace(SHAPE, masked=True)
    assert choose_attention(Engine(), masked, CUDA) == ("flash", {"flash": 1e-6})
    assert choose_attention(Engine(deterministic=True), SHAPE, CUDA).kernel == "flash"
    monkeypatch.setattr(attention_kernels, "deviation", lambda kernel, shape, device: None)
    assert choose_attention(Engine(deterministic=True), SHAPE, CUDA) == ("math", {})
    for kernel in ("cudnn", "efficient"):
        with pytest.raises(ConfigError, match="not deterministic"):
            Engine(deterministic=True, attention=kernel)


def test_the_fastest_kernel_whose_numbers_are_right_is_taken(monkeypatch) -> None:
    found = {"cudnn": math.inf, "flash": 3e-2, "efficient": 2e-6, "math": 0.0}
    monkeypatch.setattr(attention_kernels, "milliseconds", lambda kernel, shape, device: 1.0)
    monkeypatch.setattr(attention_kernels, "deviation", lambda kernel, shape, device: found[kernel])
    assert choose_attention(Engine(), SHAPE, CUDA) == ("efficient", {k: found[k] for k in list(found)[:3]})
    with pytest.raises(ConfigError, match=r"'flash' gives wrong numbers here: off by 3.0e-02"):
        choose_attention(Engine(attention="flash"), SHAPE, CUDA)
    found["efficient"] = 1.0
    assert choose_attention(Engine(), SHAPE, CUDA).kernel == "math"
    monkeypatch.setattr(attention_kernels, "milliseconds", lambda kernel, shape, device: None)
    assert choose_attention(Engine(), SHAPE, CUDA).kernel == "math"


def test_the_shape_is_that_of_the_longest_batches(small) -> None:
    config = small("model.readout=token", "engine.precision=bfloat16", "pretrain.batch_size=100")
    data = config.task.load(None)
    shape = shape_of(config, config.pretrain, data, processes=2)
    wanted = Shape(sequences=26, heads=2, length=26, d_head=6, precision="bfloat16", masked=False, causal=False)
    assert shape == wanted
    padded = dataclasses.replace(data.train, lengths=torch.full((53,), 7))
    assert shape_of(config, config.pretrain, dataclasses.replace(data, train=padded)).masked
    windows = small("model.mixer={name='block_local', window=3}")
    assert shape_of(windows, windows.pretrain, data).masked  # though nothing is padding


def test_the_manifest_names_the_kernel_and_a_resumed_run_takes_it(small, monitor, tmp_path, monkeypatch) -> None:
    asked = []
    config = small("pretrain.epochs=1", "finetune.epochs=1")

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Interrupted):
        execute(config, tmp_path, device=CPU, monitor=monitor, should_stop=stop)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["attention"] == {"pretrained": "flash", "finetuned": "flash"}
    manifest["attention"]["finetuned"] = "math"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    used = []
    monkeypatch.setattr(
        "attnprobe.training.updates.steppers.pinned", lambda kernel: used.append(kernel) or pinned(kernel)
    )
    execute(config, tmp_path, device=CPU, monitor=monitor, resume=True)
    assert list(dict.fromkeys(used)) == ["flash", "math"]
    assert manifest["mode"] == {"pretrained": "eager"}
    assert 0 < manifest["attention_deviation"]["finetuned"]["flash"] < 1e-4
    manifest["mode"]["finetuned"] = "eager"
    amended = json.loads((tmp_path / "manifest.json").read_text())
    assert amended["first_batch"].keys() == {"pretrained", "finetuned"}
    manifest["first_batch"] = amended["first_batch"]
    assert amended == manifest
