"""One step or one batch of evaluation walked through on torch's meta device, where tensors have shapes and no values.

Attention counts as one operation that keeps queries, keys, values and output, as all fused kernels do; the kernel
"math" keeps the scores as well.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attnprobe.models import Transformer
from attnprobe.models.mixers.state_space.layer import unchanging
from attnprobe.run import Engine, Phase
from attnprobe.tasks import Data, Outline, Spec, Split


def sizes_of(data: Data | Outline) -> dict[str, int]:
    if isinstance(data, Outline):
        return data.sizes
    return {name: len(split) for name, split in data.splits().items()}


def blank(data: Data | Outline, n: int) -> Split:
    """``n`` sequences without values, of the longest length there is."""
    return _split(data, n, torch.device("meta"))


def random_split(data: Data | Outline, n: int, device: torch.device) -> Split:
    """``n`` sequences to measure time with: real ones if they are loaded, else random ones of the longest length."""
    return data.train.head(n).to(device) if isinstance(data, Data) else _split(data, n, device)


def _split(data: Data | Outline, n: int, device: torch.device) -> Split:
    spec = data.spec
    shape = (n, *((2,) if spec.pairs else ()), spec.length, *(() if spec.is_tokens else (spec.channels,)))
    kind, lengths = _kind(spec), spec.is_tokens
    if isinstance(data, Data):
        kind, lengths = data.train.inputs.dtype, data.train.lengths is not None
    if kind.is_floating_point:
        inputs = torch.randn(shape, dtype=kind, device=device)
    else:
        inputs = torch.randint(1, spec.vocabulary or spec.levels or 2, shape, device=device).to(kind)
    labels = torch.zeros(n, dtype=torch.float32 if spec.regression else torch.int64, device=device)
    full = torch.full(shape[: 2 if spec.pairs else 1], spec.length, device=device) if lengths else None
    return Split(inputs=inputs, labels=labels, lengths=full)


def _kind(spec: Spec) -> torch.dtype:
    values = spec.vocabulary or spec.levels
    return torch.float32 if values is None else torch.uint8 if values <= 256 else torch.int16


def walk(model: Transformer, phase: Phase, split: Split, engine: Engine, *, backward: bool) -> None:
    batch = split.batch(torch.arange(len(split), device="meta"))
    fused = _AsKernels(engine)
    rounding = torch.autocast("cpu", torch.bfloat16, engine.precision == "bfloat16")  # which models may switch off
    with rounding, fused, unchanging(model), contextlib.nullcontext() if backward else torch.inference_mode():
        losses = phase.objective.losses(model, batch, seed=0, epoch=0, training=backward)
    if backward:
        losses.mean().backward()
        model.zero_grad(set_to_none=True)


PRODUCTS = (F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__)  # what autocast rounds the factors of


class _AsKernels(TorchFunctionMode):
    """Makes the meta device do as the engine's kernels: attention as one operation, products in bfloat16 if asked."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.fused = engine.attention != "math"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS and torch.is_autocast_enabled("cpu"):
            args = tuple(a.bfloat16() if isinstance(a, Tensor) and a.dtype == torch.float32 else a for a in args)
        if func is F.scaled_dot_product_attention and self.fused:
            return _Fused.apply(*args[:3], kwargs.get("attn_mask"))
        return func(*args, **kwargs)


class _Fused(torch.autograd.Function):
    """Shapes of a fused attention kernel: it keeps its inputs, its output and a number per query and head.

    The inputs are queries, keys, values and a mask, which may hold what a model adds to its scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32), mask)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(t) for t in ctx.saved_tensors[:3]), None)
