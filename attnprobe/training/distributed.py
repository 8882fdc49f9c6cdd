"""One run on several processes (``torchrun -m attnprobe train ...``): each takes a share of every batch.

Gradients, the sums of losses they belong to and the wish to stop are added up over the processes in one buffer, and
divided by the count of the whole batch, so the update equals that of one process up to rounding. Every process executes
the same run; only the first one's directory is kept. Masks, order and initial values depend on counters and names
alone, so nothing else has to be agreed upon.

Batch norms add up over the processes within the passes (``models.norms``); all the rest takes one collective a step. It
is not overlapped with the backward pass: models of these sizes have at most 50 MB of gradients, which take well under a
millisecond between GPUs of one machine, where a step takes tens of them.
"""

import contextlib
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attnprobe.errors import ConfigError, shown
from attnprobe.tasks import Batch

T = TypeVar("T")


class Arriving:
    """A number that is on its way from the device while it goes on working."""

    def __init__(self, tensor: Tensor) -> None:
        self.event = None
        if tensor.is_cuda:
            self.value = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.value.copy_(tensor, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(tensor.device))
        else:
            self.value = tensor

    def read(self) -> float:
        if self.event is not None:
            self.event.synchronize()
        return float(self.value)


class World:
    """The processes that share a run (torch.distributed's world); one alone unless torchrun was used and ``join``."""

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        self.control = dist.new_group(backend="gloo") if self.size > 1 else None  # for plain data
        self.wish = False
        self.wishes: deque[Arriving] = deque(maxlen=2)  # the wishes to stop of the last two steps, added up

    def shard(self, batch: Batch) -> Batch:
        """Every ``size``-th sample of the batch, starting with the process's rank."""
        if self.size == 1:
            return batch
        own = slice(self.rank, None, self.size)
        valid = None if batch.valid is None else batch.valid[own]
        return Batch(inputs=batch.inputs[own], labels=batch.labels[own], sample=batch.sample[own], valid=valid)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, without a gradient."""
        if self.size > 1:
            tensor = tensor.detach().clone()
            dist.all_reduce(tensor)
        return tensor

    def reduce_gradients(self, parameters: Iterable[nn.Parameter], sums: Tensor) -> Tensor:
        """Gradients of the whole batch's mean loss, from gradients of this share's summed loss; returns the whole sums.

        ``sums``: (3,) loss, count, correct of the share. The wish to stop travels with them.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        wish = torch.full((1,), float(self.wish), dtype=gradients[0].dtype, device=sums.device)  # copying would wait
        parts = [*(g.flatten() for g in gradients), sums.detach().to(gradients[0].dtype), wish]
        *flat, whole, wishes = self.all_reduce(torch.cat(parts)).split([part.numel() for part in parts])
        for gradient, part in zip(gradients, flat, strict=True):
            torch.div(part.view_as(gradient), whole[1].clamp(min=1), out=gradient)
        self.wishes.append(Arriving(wishes))
        return whole

    def stops(self, wish: bool) -> bool:
        """Whether any process wished to stop by the last step but one; all processes have the same answer.

        That step's sum has long arrived when a GPU is asked for it, so it need not wait. Alone: whether this one does.
        """
        self.wish = wish
        if self.size == 1:
            return wish
        return len(self.wishes) == 2 and self.wishes[0].read() > 0

    def broadcast(self, value: T) -> T:
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
        return f"cuda:{local % torch.cuda.device_count()}"  # some starters show each process its own GPU only
    return name


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[int]:
    """Meet the other processes; yields the rank. ConfigError if two of them have the same GPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # barriers and broadcasts of objects use the current one
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if device.type == "cuda":
            _check_own_device(device)
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def _check_own_device(device: torch.device) -> None:
    names: list[str] = [""] * dist.get_world_size()
    own = f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"
    dist.all_gather_object(names, own, group=dist.new_group(backend="gloo"))
    check_own_devices(names)


def check_own_devices(names: Sequence[str]) -> None:
    """names: what tells a process's GPU from all others, by rank. ConfigError if one occurs twice."""
    taken = len(set(names))
    if taken < len(names):
        hint = f"start {taken} of them: torchrun --nproc-per-node, or several seeds one after the other"
        raise ConfigError(f"{len(names)} processes share {taken} GPU{'s' if taken > 1 else ''}", hint)


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
