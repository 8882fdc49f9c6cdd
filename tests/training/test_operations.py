"""Operations as they are counted against counts by hand, for every mixer, and against torch's own counter."""

import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnprobe import presets, run
from attnprobe.config import build, override
from attnprobe.models import TransformerConfig
from attnprobe.models.mixers import MIXERS, Site
from attnprobe.training import operations

BATCH, LENGTH, D, HEADS = 3, 60, 12, 2
POSITIONS = BATCH * LENGTH
PROJECTION = 2 * POSITIONS * D * D
FREQUENCIES = LENGTH // 2 + 1


def transforms(number: int, length: int) -> float:
    """Of so many real sequences: half of 5 n log2 n each."""
    return number * 2.5 * length * math.log2(length)


def convolution(directions: int = 2) -> float:
    """Inputs and outputs of twice the length, kernels, and what comes after: D -> 2 D."""
    return transforms(2 * BATCH * D + D, 2 * LENGTH) + 2 * PROJECTION


def attended(keys: float) -> float:
    """Scores and their products with the values, if every position looks at so many keys."""
    return 4 * POSITIONS * keys * D


S4_STATES, DLR_STATES = 6, 7
COARSE = 8  # times 8 powers are at least as many as positions
SIZES = {
    "block_local": {"window": 5}, "s4": {"states": S4_STATES}, "s4d": {"states": S4_STATES},
    "dlr": {"states": DLR_STATES}, "performer": {"features": 11}, "linformer": {"rank": 7},
    "longformer": {"window": 5, "everywhere": 0}, "bigbird": {"block": 5, "random": 2},
    "reformer": {"buckets": 4, "chunk": 6, "rounds": 3},
}  # fmt: skip
BY_HAND = {
    "attention": 4 * PROJECTION + attended(LENGTH),
    "block_local": 4 * PROJECTION + attended(3 * 5),  # every window sees itself and two more
    "linear": 4 * PROJECTION + 4 * POSITIONS * D * (D // HEADS) + 2 * POSITIONS * D,
    "performer": 4 * PROJECTION + 8 * POSITIONS * D * 11 + 2 * POSITIONS * HEADS * 11,
    "linformer": 4 * PROJECTION + 4 * POSITIONS * 7 * D + attended(7),
    "longformer": 4 * PROJECTION + attended(3 * 5),
    "bigbird": 4 * PROJECTION + attended((4 + 2) * 5) + attended(5),  # the first block sees all
    "reformer": 3 * PROJECTION + 3 * (2 * POSITIONS * HEADS * (D // HEADS) * 2 + attended(2 * 6)),
    "s4": convolution()
    + transforms(2 * D, LENGTH)
    + 4 * 2 * D * FREQUENCIES * (2 * 2 + 2) * S4_STATES,  # four products of complex rows with resolvents, two of both
    "s4d": convolution() + 2 * 2 * D * COARSE * COARSE * S4_STATES,  # real matrices, real and imaginary parts
    "dlr": convolution() + 2 * 2 * D * LENGTH * 2 * DLR_STATES + 2 * 2 * DLR_STATES * COARSE * COARSE * 2,
}


def counted(name: str, torch_alone: bool = False) -> float:
    config = build(TransformerConfig, {"d_model": D, "heads": HEADS, "mixer": {"name": name, **SIZES.get(name, {})}})
    site = Site(
        layer=0, d_model=D, length=LENGTH, heads=HEADS, causal=False, dropout=0.0, init="independent", rotary=None
    )  # fmt: skip
    with torch.device("meta"):
        layer, x = config.mixer.make(site), torch.empty(BATCH, LENGTH, D)
        residual = {"residual": x} if type(layer).gates else {}
        if not torch_alone:
            return operations.counted(lambda: layer(x, **residual))
        with FlopCounterMode(display=False) as counter:
            layer(x, **residual)
        return counter.get_total_flops()


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(name: str) -> None:
    assert counted(name) == pytest.approx(BY_HAND[name], rel=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_what_torch_counts_is_counted_and_nothing_less(name: str) -> None:
    """Its counter leaves out Fourier transforms and takes complex products for real ones."""
    more = counted(name) - counted(name, torch_alone=True)
    if name in ("s4", "s4d", "dlr", "mega", "spade"):
        assert more > transforms(2 * BATCH * D, 2 * LENGTH) * 0.99
    else:
        assert more == 0


@pytest.mark.parametrize(("complex_inputs", "real"), [(False, 0.5), (True, 1.0)])
def test_fourier_transforms_and_complex_products(complex_inputs: bool, real: float) -> None:
    x = torch.randn(3, 64, dtype=torch.complex64 if complex_inputs else torch.float32)
    transform = torch.fft.fft if complex_inputs else torch.fft.rfft
    assert operations.counted(lambda: transform(x)) == real * 3 * 5 * 64 * 6
    y = x.mT.to(torch.complex64)
    assert operations.counted(lambda: y @ y.mT) == 4 * 2 * 64 * 64 * 3


def test_of_a_token_is_of_a_batch_by_its_positions_and_a_step_is_three_passes() -> None:
    config = run.from_table(override(presets.read_table("textures"), ["model.layers=2", "pretrain.batch_size=7"]))
    phase, data = config.phases()["finetuned"], config.task.outline()
    d, mlp, length, classes = 64, 128, 64, 6
    per_token = 2 * 2 * d + 2 * (8 * d * d + 4 * length * d + 4 * d * mlp) + 2 * d * classes / length
    assert operations.of_token(config, phase, data, "values", 7) == pytest.approx(per_token)
    step = operations.of_step(config, phase, data, "values")
    assert 2.8 < step / (per_token * length) < 3.01  # there is no gradient along the inputs


def test_what_a_batch_shares_is_counted_once() -> None:
    """A kernel is made once for all sequences."""
    config = run.from_table(override(presets.read_table("textures"), ["model.mixer=s4", "model.d_mlp=0"]))
    phase, data = config.phases()["finetuned"], config.task.outline()
    one, many = (operations.of_token(config, phase, data, "values", n) for n in (1, 50))
    assert many < one / 2
    causal = dataclasses.replace(config, model=dataclasses.replace(config.model, causal=True))
    assert operations.of_token(causal, phase, data, "values", 1) < one
