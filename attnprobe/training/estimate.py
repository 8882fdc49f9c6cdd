"""What a phase will need before it starts: memory counted on tensors without values, seconds measured on a few steps.

Memory is counted by walking one step and one batch of evaluation on torch's meta device, where tensors have shapes and
no values: every storage that is made adds its bytes, and takes them away when the last tensor that needs it is gone.
On a CPU the last block computes only the hidden positions, so the truth is lower.
"""

import dataclasses
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnprobe.machine import free_memory, synchronise
from attnprobe.models import ReconstructionTarget, Transformer, make_model
from attnprobe.models.initialisation import undrawn
from attnprobe.run import Engine, Phase, RunConfig
from attnprobe.tasks import Data, Outline, Split
from attnprobe.training import operations
from attnprobe.training.buckets import evaluation_batch
from attnprobe.training.evaluation import evaluate
from attnprobe.training.loop import Trainer
from attnprobe.training.transfer import freeze
from attnprobe.training.walk import blank, random_split, sizes_of, walk

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
    one = operations.of_step(config, phase, data, target) / _operations_per_second(device)
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


def _peak(model: Transformer, phase: Phase, split: Split, engine: Engine, *, backward: bool) -> int:
    with _LiveBytes() as counted:
        walk(model, phase, split, engine, backward=backward)
    return counted.peak


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
