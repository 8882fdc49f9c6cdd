"""How many floating-point operations a model takes, counted on tensors without values.

What torch counts (a multiplication and an addition of every product in matrix products and attention), Fourier
transforms besides, and a product of complex numbers as four products. Exponentials, norms, activations and sums count
for nothing, as usual.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, mm_flop

from attnprobe.models import ReconstructionTarget
from attnprobe.models.initialisation import undrawn
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data, Outline
from attnprobe.training.walk import blank, walk

COMPLEX = 4  # products of real numbers in one of complex ones


def of_step(config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget) -> int:
    """Of a step on one sequence, forward and backward."""
    return _of_batch(config, phase, data, target, 1, backward=True)


def of_token(config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget, batch: int) -> float:
    """Of a forward pass, per position of a batch, whose positions share what is computed once, as long kernels are."""
    tokens = batch * data.spec.length * (2 if data.spec.pairs else 1)
    return _of_batch(config, phase, data, target, batch, backward=False) / tokens


def _of_batch(
    config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget, batch: int, *, backward: bool
) -> int:
    with torch.device("meta"):
        model = undrawn(config.model, data.spec, target)
    engine = dataclasses.replace(config.engine, attention="math")
    return counted(lambda: walk(model, phase, blank(data, batch), engine, backward=backward))


def counted(action: Callable[[], object]) -> int:
    """Of everything that is computed while ``action`` runs."""
    with FlopCounterMode(display=False, custom_mapping=dict(FORMULAS)) as counter:
        action()
    return counter.get_total_flops()


def _fourier(given: Tensor, axes: list[int], *_: Any, out_val: Tensor, **__: Any) -> int:
    """5 n log2 n of a complex transform of n numbers, half of it where one side is real (radix 2, Cooley and Tukey)."""
    real = out_val if not out_val.is_complex() else given
    numbers = math.prod(real.shape[axis] for axis in axes)
    share = 1.0 if real.is_complex() else 0.5
    return round(share * 5 * real.numel() * math.log2(max(2, numbers)))


def _product(formula: Callable[..., int]) -> Callable[..., int]:
    def flops(a: Tensor, b: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
        return formula(a, b, out_val=out_val) * (COMPLEX if out_val.is_complex() else 1)

    return flops


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    """Tells torch's counter to hand over tensors, whose type matters here, and not their shapes alone."""
    formula._get_raw = True  # pyright: ignore[reportFunctionMemberAccess]
    return formula


ATEN = torch.ops.aten
FORMULAS: Mapping[Any, Callable[..., int]] = {
    ATEN.mm: _raw(_product(mm_flop)),
    ATEN.bmm: _raw(_product(bmm_flop)),
    ATEN._fft_r2c: _raw(_fourier),
    ATEN._fft_c2r: _raw(_fourier),
    ATEN._fft_c2c: _raw(_fourier),
}
