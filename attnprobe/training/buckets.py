"""Which samples make a batch, and how long it is: batches of similar lengths, trimmed to their longest member.

Where a model does not see padding, trimming changes no loss. What does change against the published way ("padded") is
the company a sample keeps: the epoch's random order is cut into windows of 16 to 64 batches, each window is sorted by
length and cut into batches, and all batches are shuffled. Larger windows pad less and mix less. On ListOps in batches
of 64, windows of 16 leave 6 % of padding (13 % more pairs of positions than needed), windows of 64 leave 3 % (5 %).
"""

import dataclasses
import math

import torch
from torch import Tensor

from attnprobe.models import TransformerConfig
from attnprobe.run import Engine
from attnprobe.tasks import Batch, Split

WINDOWS = (16, 64)  # batches, least and most; in between a quarter of the epoch
QUANTUM = 32  # lengths are rounded up to a multiple, so that few shapes occur


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
    """The batches of one pass over a split, in order."""

    split: Split
    index: tuple[Tensor, ...]  # (batch,) sample numbers of each, on the split's device
    lengths: tuple[int, ...] | None  # what each batch is trimmed to; None = nothing is trimmed

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Batch:
        split = self.split
        if self.lengths is not None:
            assert split.lengths is not None
            short = split.inputs.narrow(split.lengths.dim(), 0, self.lengths[number])
            split = dataclasses.replace(split, inputs=short)
        return split.batch(self.index[number])


def trims(split: Split, model: TransformerConfig, engine: Engine) -> bool:
    """Whether batches are trimmed: lengths differ, and the engine is asked to.

    A model that looks at padding is trimmed only if asked for explicitly ("longest"), as this changes what it sees.
    """
    if split.lengths is None or engine.batching == "padded":
        return False
    return engine.batching == "longest" or model.padding == "masked"


def training_batches(
    split: Split, batch_size: int, trim: bool, generator: torch.Generator, *, mixed: bool = False
) -> Batches:
    """A random pass over the split without its last incomplete batch; depends on the CPU ``generator`` alone.

    mixed: batches are not of similar lengths but as the order has it, each exactly as long as its longest member.
    """
    order = torch.randperm(len(split), generator=generator)
    order = order[: len(split) // batch_size * batch_size]
    if not trim:
        order = order.to(split.labels.device, non_blocking=True)
        return Batches(split=split, index=order.split(batch_size), lengths=None)
    length = longest(split)
    if mixed:
        return _trimmed(split, length, order.split(batch_size), quantum=1)
    window = max(WINDOWS[0], min(WINDOWS[1], len(order) // batch_size // 4))
    windows = [part[length[part].argsort(stable=True)] for part in order.split(window * batch_size)]
    parts = torch.cat(windows).view(-1, batch_size)
    parts = parts[torch.randperm(len(parts), generator=generator)]
    return _trimmed(split, length, parts.unbind())


def evaluation_batch(split: Split, engine: Engine) -> int:
    """Sequences (or pairs of them) in a batch of evaluation, so that neither they nor their positions are too many."""
    axis = 1 if split.lengths is None else split.lengths.dim()  # of positions
    positions = math.prod(split.inputs.shape[1 : axis + 1])
    return max(1, min(engine.evaluation_batch, engine.evaluation_tokens // positions))


def evaluation_batches(split: Split, batch_size: int, trim: bool, *, mixed: bool = False) -> Batches:
    """Every sample once; mixed: in the split's own order."""
    if not trim:
        index = torch.arange(len(split), device=split.labels.device).split(batch_size)
        return Batches(split=split, index=index, lengths=None)
    length = longest(split)
    if mixed:
        return _trimmed(split, length, torch.arange(len(split)).split(batch_size), quantum=1)
    return _trimmed(split, length, length.argsort(stable=True).split(batch_size))


def longest(split: Split) -> Tensor:
    """(n,) int64 on the CPU: how long each sample is; of a pair, the longer one."""
    assert split.lengths is not None
    lengths = split.lengths.cpu()
    return lengths if lengths.dim() == 1 else lengths.amax(1)


def _trimmed(split: Split, length: Tensor, parts: tuple[Tensor, ...], quantum: int = QUANTUM) -> Batches:
    assert split.lengths is not None
    whole = split.inputs.shape[split.lengths.dim()]
    needed = [-(-int(length[part].max()) // quantum) * quantum for part in parts]
    device = split.labels.device
    return Batches(
        split=split,
        index=tuple(part.to(device, non_blocking=True) for part in parts),
        lengths=tuple(min(whole, max(1, n)) for n in needed),
    )
