"""One run on several processes (``torchrun -m attnprobe train ...``): each takes a share of every batch.

Losses are divided by the count of the whole batch and gradients are added up over the processes in one buffer, so the
update equals that of one process up to rounding. Every process executes the same run; only the first one's directory
is kept. Masks, order and initial values depend on counters and names alone, so nothing else has to be agreed upon.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attnprobe.errors import ConfigError, shown
from attnprobe.tasks import Batch

T = TypeVar("T")


class Team:
    """The processes of a run; alone unless torchrun started this one and ``join`` was called."""

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        # A question between steps must not make the GPU wait, so answers travel on the CPU.
        self.control = dist.new_group(backend="gloo") if self.size > 1 else None

    def share(self, batch: Batch) -> Batch:
        """Every ``size``-th sample of the batch, starting with the process's rank."""
        if self.size == 1:
            return batch
        own = slice(self.rank, None, self.size)
        valid = None if batch.valid is None else batch.valid[own]
        return Batch(inputs=batch.inputs[own], labels=batch.labels[own], sample=batch.sample[own], valid=valid)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, without a gradient."""
        if self.size > 1:
            tensor = tensor.detach().clone()
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        if self.size == 1:
            return flag
        answer = torch.tensor(int(flag))
        dist.all_reduce(answer, op=dist.ReduceOp.MAX, group=self.control)
        return bool(answer)

    def agreed(self, value: T) -> T:
        """What the first process says; plain data only."""
        said = [value]
        if self.size > 1:
            dist.broadcast_object_list(said, src=0, group=self.control)  # pyright: ignore[reportArgumentType]
        return said[0]

    def check(self, batch_size: int) -> None:
        if batch_size % self.size:
            hint = "choose a batch_size that the number of processes divides"
            raise ConfigError(f"a batch of {batch_size} cannot be shared by {self.size} processes", hint=hint)


def started_by_torchrun() -> bool:
    """ConfigError if the environment says so by halves, as a forgotten export does."""
    if _environment("WORLD_SIZE", 1) <= 1:
        return False
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        hint = "start it by torchrun, or unset WORLD_SIZE"
        raise ConfigError(f"WORLD_SIZE asks for several processes, but {missing[0]} is not set", hint=hint)
    if not 0 <= rank() < _environment("WORLD_SIZE", 1):
        raise ConfigError(f"RANK {rank()} lies outside of WORLD_SIZE", hint="start it by torchrun")
    return True


def rank() -> int:
    """This process's number among those that torchrun started."""
    return _environment("RANK", 0)


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ConfigError(f"the environment's {name} is {shown(text)}, which is no number", hint=f"unset {name}")
    return int(text)


def local_device(name: str) -> str:
    """The device of this process: the GPU of its local rank, unless one was named or there is none."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        local = _environment("LOCAL_RANK", rank())  # other starters than torchrun may leave it out
        return f"cuda:{local % torch.cuda.device_count()}"
    return name


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[int]:
    """Meet the other processes; yields the rank."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # barriers and broadcasts of objects use the current one
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def own_folder(rank: int, folder: Path) -> Iterator[Path]:
    """The run directory of this process: ``folder`` itself for the first one, else a copy to be thrown away."""
    dist.barrier()
    if rank == 0:
        dist.barrier()
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="attnprobe-rank") as scratch:
        copy = Path(scratch) / "run"
        if folder.is_dir():  # an interrupted run is resumed by all
            shutil.copytree(folder, copy)
        dist.barrier()  # not before everybody has copied may the first process write
        yield copy
