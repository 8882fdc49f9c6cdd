"""Too little memory in one line, with a size that would fit by the estimate."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

from attnprobe import run
from attnprobe.errors import RunError, explain, lacks_memory
from attnprobe.machine import free_memory
from attnprobe.models import ReconstructionTarget
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data
from attnprobe.training.buckets import evaluation_batch
from attnprobe.training.estimate import SHARE, Memory, count_memory
from attnprobe.training.execution import Execution

SMALLER = "choose a smaller model, or shorter sequences"


@contextlib.contextmanager
def explained_memory(
    execution: Execution, name: str, phase: Phase, data: Data, target: ReconstructionTarget
) -> Iterator[None]:
    """Around a phase whose model and data are on the device: lack of memory is a RunError with what would do."""
    free = free_memory(execution.device)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        told = f"the {name} phase has {explain(error)}"
        if execution.in_group:
            raise RunError(told, hint="train the seeds side by side, without --together, or fewer of them") from error
        raise RunError(told, hint=what_would_fit(execution.config, name, phase, data, target, free)) from error


def what_would_fit(
    config: RunConfig, name: str, phase: Phase, data: Data, target: ReconstructionTarget, free: int | None
) -> str:
    """Settings that need less than is free, in words. free: bytes before the phase; None where that is not known."""
    section = next(key for key, own in run.SECTIONS.items() if own == name)
    batch = min(phase.batch_size, len(data.train))
    if free is None:
        return f"take smaller batches: -s {section}.batch_size={max(1, batch // 2)}, and -s engine.evaluation_tokens"
    room = SHARE * free
    needed = count_memory(config, phase, data, target)
    parts, known = [], f"{_size(free)} were free"
    if step_bytes(needed) > room or evaluation_bytes(needed) <= room:
        fits = fitting_batch(config, phase, data, target, room)
        if fits is None:
            return f"{known}, and a step of even one sequence needs more: {SMALLER}"
        parts.append(f"-s {section}.batch_size={fits} (a step of {batch} needs {_size(step_bytes(needed))})")
    if evaluation_bytes(needed) > room:
        fits = fitting_tokens(config, phase, data, target, room)
        if fits is None:
            return f"{known}, and evaluating even one sequence needs more: {SMALLER}"
        parts.append(f"-s engine.evaluation_tokens={fits} (evaluating needs {_size(evaluation_bytes(needed))})")
    return f"{known}; this would fit by the estimate: {' and '.join(parts)}"


def step_bytes(memory: Memory) -> int:
    """Of a step beside parameters and data."""
    return memory.gradients + memory.optimizer + memory.best + memory.activations


def evaluation_bytes(memory: Memory) -> int:
    """Of a batch of evaluation beside parameters and data."""
    return memory.optimizer + memory.best + memory.evaluation


def fitting_batch(config: RunConfig, phase: Phase, data: Data, target: ReconstructionTarget, room: float) -> int | None:
    """A batch size whose step fits, at most half of the phase's; None if not even one sequence does."""
    size = min(phase.batch_size, len(data.train)) // 2
    while size >= 1:
        if step_bytes(count_memory(config, dataclasses.replace(phase, batch_size=size), data, target)) <= room:
            return size
        size //= 2
    return None


def fitting_tokens(
    config: RunConfig, phase: Phase, data: Data, target: ReconstructionTarget, room: float
) -> int | None:
    """Positions in a batch of evaluation that fit; None if not even those of one sequence do."""
    split = data.validation
    axes = 1 if split.lengths is None else split.lengths.dim()  # of positions
    positions = math.prod(split.inputs.shape[1 : axes + 1])
    samples = min(evaluation_batch(split, config.engine), len(split)) // 2
    one = dataclasses.replace(phase, batch_size=1)
    while samples >= 1:
        engine = dataclasses.replace(config.engine, evaluation_tokens=samples * positions)
        changed = dataclasses.replace(config, engine=engine)
        if evaluation_bytes(count_memory(changed, one, data, target)) <= room:
            return samples * positions
        samples //= 2
    return None


def _size(size: float) -> str:
    return f"{size / 2**30:.2g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
