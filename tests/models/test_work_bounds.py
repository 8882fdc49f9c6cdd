"""Settings that would take hours or all memory are refused in one line before that, and quickly."""

import time
from typing import Any

import pytest
import torch

from attnprobe.config import build
from attnprobe.errors import ConfigError, RunError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers import MIXERS
from attnprobe.run import Phase, from_table
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.updates.attention_kernels import shape_of

SECONDS = 5.0  # of the processor; far more than any of them takes


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"name": "s4", "states": 4096}, "states must be at most 1024, got 4,096"),
        ({"name": "s4d", "states": 10**9}, "states must be at most 1024"),
        ({"name": "s4", "states": 1024}, r"mixer\.states 1,024 make the start of 64 channels too long"),
        ({"name": "spade", "states": 1024}, r"mixer\.states 1,024 make the start of 64 channels too long"),
        ({"name": "reformer", "rounds": 10**9}, "rounds must be at most 64, got 1,000,000,000"),
        ({"name": "s4", "step_high": 1e300}, r"step_high must be at most 10000, got 1e\+300"),
        ({"name": "dlr", "step_high": 1e300}, "step_high must be at most 10000"),
    ],
)
def test_settings_that_are_too_large_are_refused(mixer: dict[str, Any], message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=message):
        build(TransformerConfig, {"mixer": mixer}, "model")
    assert time.process_time() - start < SECONDS


def test_endless_models_are_refused() -> None:
    """Also where only their parameters are counted."""
    with pytest.raises(ConfigError, match="layers must be at most 1,000: more take hours to build"):
        build(TransformerConfig, {"layers": 10**6}, "model")


@pytest.mark.parametrize(
    "model",
    [
        {"mixer": {"name": "linformer", "rank": 10**7}},  # its weights grow with the length
        {"mixer": {"name": "performer", "features": 10**11}},  # kept, but no parameters
        {"mixer": {"name": "dlr", "states": 10**11}},
        {"mixer": {"name": "mega", "states": 10**11}},
        {"layers": 1000, "d_model": 4096},
        {"d_model": 4 * 10**9},
        {"positions": "learned", "d_model": 10**6, "d_mlp": 1, "layers": 1, "heads": 1, "mixer": {"name": "s4d"}},
    ],
    ids=str,
)
def test_what_this_machine_could_never_hold_is_refused(model: dict[str, Any], monkeypatch) -> None:
    monkeypatch.setattr("attnprobe.machine.memory", lambda: 2**36)
    start = time.process_time()
    with pytest.raises(RunError, match="not enough memory: the model's weights alone take"):
        make_model(build(TransformerConfig, model), Spec(length=65536, classes=2, channels=1), "values", seed=0)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("name", ["block_local", "spade"])
@pytest.mark.parametrize(("window", "squares", "side"), [(4096, 5, 12288), (128, 170, 384), (10**6, 1, 65536)])
def test_kernels_are_tried_on_windows_not_on_all_pairs(name: str, window: int, squares: int, side: int) -> None:
    config = from_table(
        {"task": "textures", "model": {"mixer": {"name": name, "window": window}}, "finetune": PHASE, "pretrain": PHASE}
    )
    assert isinstance(config.finetune, Phase)
    inputs = torch.empty(100, 65536, 1, device="meta")
    split = Split(inputs=inputs, labels=torch.zeros(100), lengths=None)
    data = Data(spec=Spec(length=65536, classes=2, channels=1), train=split, validation=split, test=split)
    shape = shape_of(config, config.finetune, data)
    assert (shape.sequences, shape.length, shape.masked) == (4 * squares, side, True)


PHASE = {"objective": {"name": "classification"}, "batch_size": 4}


@pytest.mark.parametrize("name", MIXERS)
def test_squares_are_never_more_than_all_pairs(name: str) -> None:
    settings = MIXERS[name]()
    for length in (1, 100, 20_000):
        number, side = settings.squares(length)
        assert number >= 1
        assert 1 <= side <= length
        assert number * side**2 <= length**2
