"""What a phase will need before it starts: memory counted on tensors without values, seconds measured on a few steps.

Memory is counted by walking one step and one batch of evaluation on torch's meta device, where tensors have shapes and
no values: every storage that is made adds its bytes, and takes them away when the last tensor that needs it is gone.
Attention counts as one operation that keeps queries, keys, values and output, as all fused kernels do; the kernel
"math" keeps the scores as well. On a CPU the last block computes only the hidden positions, so the truth is lower.
"""

import contextlib
import dataclasses
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attnprobe.machine import free_memory, synchronise
from attnprobe.models import ReconstructionTarget, Transformer, make_model
from attnprobe.models.initialisation import undrawn
from attnprobe.run import Engine, Phase, RunConfig
from attnprobe.tasks import Data, Outline, Spec, Split
from attnprobe.training.buckets import evaluation_batch
from attnprobe.training.loop import Trainer, evaluate
from attnprobe.training.transfer import freeze

SECONDS = 2.0  # the measurement of a phase may take about so long
SECONDS_OF_ONE = 5.0  # a sequence that would take longer is not measured
STEPS = 5
SLOWER = 4.0  # a step takes up to so many times longer than its products of matrices alone
SHARE = 0.8  # of the free memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes. What Python and torch themselves take comes on top."""

    parameters: int
    gradients: int
    optimizer: int  # AdamW's two running means
    activations: int  # most that is alive at once in a step beside parameters and gradients
    evaluation: int  # the same of a batch of evaluation, which keeps nothing for a backward pass
    best: int  # copy of the best epoch's parameters
    data: int

    @property
    def total(self) -> int:
        working = max(self.gradients + self.activations, self.evaluation)
        return self.parameters + self.optimizer + working + self.best + self.data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration:
    seconds_per_step: float | None  # None = not measured
    seconds: float | None  # all steps and evaluations of the phase
    note: str = ""


def count_memory(config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget) -> Memory:
    """Peak of one phase on a device of any kind."""
    spec, sizes = data.spec, sizes_of(data)
    with torch.device("meta"):
        model = undrawn(config.model, spec, target)
    freeze(model, phase.freeze)
    trainable = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    step = _peak(model, phase, blank(data, min(phase.batch_size, sizes["train"])), config.engine, backward=True)
    samples = min(evaluation_batch(blank(data, 1), config.engine), sizes["validation"])
    evaluation = _peak(model, phase, blank(data, samples), config.engine, backward=False)
    parameters = sum(p.nbytes for p in model.parameters())
    one = blank(data, 1)
    per_sample = one.inputs.nbytes + one.labels.nbytes + (0 if one.lengths is None else one.lengths.nbytes)
    return Memory(
        parameters=parameters, gradients=trainable, optimizer=2 * trainable, activations=max(0, step - trainable),
        evaluation=evaluation, best=parameters, data=per_sample * sum(sizes.values()),
    )  # fmt: skip


def measure_duration(
    config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget, memory: Memory,
    device: torch.device,
) -> Duration:  # fmt: skip
    """Time a few steps and a batch of evaluation on random data, or on fewer sequences where a step takes too long."""
    sizes = sizes_of(data)
    batch = min(phase.batch_size, sizes["train"])
    free = free_memory(device)
    if free is not None and memory.total - memory.data > SHARE * free:
        wanted, there = (f"{size / 2**30:.1f} GiB" for size in (memory.total, free))
        return Duration(seconds_per_step=None, seconds=None, note=f"not timed: needs {wanted}, {there} are free")
    one = operations(config, phase, data, target) / _operations_per_second(device)
    if one > SECONDS_OF_ONE:
        return Duration(seconds_per_step=None, seconds=None, note=f"not timed: one sequence takes about {one:.0f} s")
    used = max(1, min(batch, int(SECONDS / STEPS / SLOWER / max(one, 1e-9))))
    split = random_split(data, used, device)
    sample = Data(spec=data.spec, train=split, validation=split, test=split)
    model = make_model(config.model, data.spec, target, seed=config.seed).to(device)
    freeze(model, phase.freeze)
    part = dataclasses.replace(phase, batch_size=used)
    trainer = Trainer(model, sample, "estimate", part, config.engine, seed=config.seed)
    inputs = trainer.batches(0)[0]
    step = _seconds(lambda: trainer.update(inputs, 0), device) / used
    looking = _seconds(lambda: evaluate(model, split, phase.objective, config.engine, seed=config.seed), device) / used
    steps = sizes["train"] // batch * phase.epochs
    seconds = steps * batch * step + phase.epochs * sizes["validation"] * looking
    note = "" if used == batch else f"timed with {used} of {batch} sequences"
    return Duration(seconds_per_step=batch * step, seconds=seconds, note=note)


def operations(config: RunConfig, phase: Phase, data: Data | Outline, target: ReconstructionTarget) -> int:
    """Floating-point operations of a step on one sequence, counted on the meta device."""
    with torch.device("meta"):
        model = undrawn(config.model, data.spec, target)
    with FlopCounterMode(display=False) as counter:
        _walk(model, phase, blank(data, 1), dataclasses.replace(config.engine, attention="math"), backward=True)
    return counter.get_total_flops()


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


def _peak(model: Transformer, phase: Phase, split: Split, engine: Engine, *, backward: bool) -> int:
    with _LiveBytes() as counted:
        _walk(model, phase, split, engine, backward=backward)
    return counted.peak


def _walk(model: Transformer, phase: Phase, split: Split, engine: Engine, *, backward: bool) -> None:
    batch = split.batch(torch.arange(len(split), device="meta"))
    fused = _AsKernels(engine)
    with fused, contextlib.nullcontext() if backward else torch.inference_mode():
        losses = phase.objective.losses(model, batch, seed=0, epoch=0, training=backward)
    if backward:
        losses.mean().backward()
        model.zero_grad(set_to_none=True)


class _LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations have made and that are still needed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in given and key not in self.known:
                self.known.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, key, size)
        return made

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


PRODUCTS = (F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__)  # what autocast rounds the factors of


class _AsKernels(TorchFunctionMode):
    """Makes the meta device do as the engine's kernels: attention as one operation, products in bfloat16 if asked."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.fused, self.half = engine.attention != "math", engine.precision == "bfloat16"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS and self.half:
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


def _seconds(action: Any, device: torch.device) -> float:
    """Of one call: the median of a few, after one to warm up; at most about SECONDS for all."""
    _timed(action, device)
    times: list[float] = []
    while len(times) < STEPS and sum(times) < SECONDS:
        times.append(_timed(action, device))
    return sorted(times)[len(times) // 2]


def _timed(action: Any, device: torch.device) -> float:
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def _operations_per_second(device: torch.device) -> float:
    """Of a product of matrices, the best this machine does."""
    size = 512
    matrix = torch.ones(size, size, device=device)
    return 2 * size**3 / min(_timed(lambda: matrix @ matrix, device) for _ in range(4))
