"""The losses of an epoch's updates, kept on the device: which one is no finite number, and which ones stand out.

On a GPU nobody may wait within a step, so each update leaves its loss in a row of numbers, which is read when the run
saves and when an epoch ends. On a CPU there is nothing to wait for, and the loss of every update is looked at.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.errors import RunError

UNKNOWN = -math.inf  # of an update not made yet, or made before losses were kept
WINDOW = 50  # updates before one that say what is usual
SPREADS = 10.0  # a spike lies so many standard deviations above the median of the window, which have a robust estimate
TIMES = 2.0  # and is so many times the median
MOST_RESTARTS = 3  # in a phase
ROBUST = 1.4826  # a normal distribution's standard deviation divided by its median absolute deviation


class DivergedError(RunError):
    """A loss, a gradient or a parameter is no finite number. update: the first one known to be so, from 1."""

    def __init__(self, message: str, update: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.update = update


class Spike(NamedTuple):
    position: int  # in the epoch, from 0
    loss: float
    usual: float  # the median of the updates before


def no_losses(updates: int, device: torch.device) -> Tensor:
    """(updates,) float32 for the mean losses of an epoch."""
    return torch.full((updates,), UNKNOWN, device=device)


def note(losses: Tensor, position: int, sums: Tensor) -> None:
    """Keep an update's mean loss. sums: (3,) loss, count, correct. Does not wait for the device."""
    torch.div(sums[0], sums[1].clamp(min=1), out=losses[position])


def first_bad(losses: Tensor) -> int | None:
    """The first position of a loss that is NaN or infinite; waits for the device."""
    found = _bad(losses).nonzero()
    return int(found[0]) if len(found) else None


def bad_count(losses: Tensor) -> int:
    return int(_bad(losses).sum())


def _bad(losses: Tensor) -> Tensor:
    return ~losses.isfinite() & (losses != UNKNOWN)


def spikes(losses: Tensor, before: Tensor) -> list[Spike]:
    """Losses of an epoch far above those of the ``WINDOW`` updates before each; none is judged by fewer.

    before: (any number,) those before the epoch, in order. What is no finite number counts nowhere. Of the window the
    median and the median absolute deviation are taken, which one earlier spike does not move.
    """
    own = losses.detach().cpu().double()
    position = own.isfinite().nonzero()[:, 0]
    both = torch.cat([before[before.isfinite()].double(), own[position]])
    if len(both) <= WINDOW:
        return []
    windows = both[:-1].unfold(0, WINDOW, 1)
    usual = windows.median(1).values
    spread = ROBUST * (windows - usual[:, None]).abs().median(1).values
    high = both[WINDOW:] > torch.maximum(usual + SPREADS * spread, TIMES * usual)
    first = len(both) - len(position) - WINDOW  # of the judged ones that belong to this epoch
    return [
        Spike(position=int(position[n - first]), loss=float(both[WINDOW + n]), usual=float(usual[n]))
        for n in high.nonzero()[:, 0].tolist()
        if n >= first
    ]


def told(high: Sequence[Spike], epoch: int, updates: int) -> str:
    """The spikes of an epoch (from 0) of so many updates, in words."""
    worst = max(high, key=lambda spike: spike.loss / max(spike.usual, 1e-30))
    number = f"{len(high)} loss spike{'s' if len(high) > 1 else ''} in epoch {epoch + 1}"
    return (
        f"{number}, the largest at update {epoch * updates + worst.position + 1}: {worst.loss:.3g}, where "
        f"{worst.usual:.3g} was usual in the {WINDOW} updates before"
    )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Of those that hold fractions; waits for the device."""
    return all(bool(found.all()) for found in [t.isfinite().all() for t in tensors if t.is_floating_point()])


def latest(losses: Tensor, before: Tensor) -> Tensor:
    """(at most ``WINDOW``,) the last finite losses after an epoch, on the CPU: what is usual for the next one."""
    both = torch.cat([before, losses.detach().cpu()])
    return both[both.isfinite()][-WINDOW:].clone()
