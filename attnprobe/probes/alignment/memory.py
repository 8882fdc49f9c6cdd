"""How the alignment probe divides its memory: mean gradients that are kept, sequences and queries at once."""

import contextlib
import dataclasses
import math

import numpy as np
import torch

from attnprobe.capture.footprint import peak_bytes
from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.probes.alignment.inner_products import movement
from attnprobe.probes.memory import most_padded
from attnprobe.probes.score_gradients import Method, trace
from attnprobe.scores.directions import DENSE_LIMIT

SHARE = 3  # one part in so many may go to mean gradients over (query, key)
PLACES = 4  # scores, offsets, W_Q, W_K: where cosines are taken
FEWEST_GROUPS = 5  # cosines from fewer have no error bars worth the name
LONG_BLOCK = 256  # queries at a time above DENSE_LIMIT
CPU_BYTES = 2**24  # of a block; larger ones only fall out of the cache
BUDGETS = 4  # sequences and queries take one part in so many each: freed blocks leave holes that nothing else fits in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is held at once."""

    method: Method
    groups: int
    batch: int  # sequences of one group
    rows: int  # queries of these
    batch_of_all: int  # sequences where no groups are kept apart
    rows_of_all: int  # queries of these
    keep_scores: bool  # mean gradients over (query, key), not only by offset


def fitting_groups(subject: Subject, groups: int, memory_limit: int) -> int:
    """As many groups as have room for mean gradients over (query, key); all of them if those would be too few."""
    fitting = int(memory_limit / SHARE / _group_bytes(subject))
    return groups if subject.space.length > DENSE_LIMIT or fitting < FEWEST_GROUPS else min(groups, fitting)


def _group_bytes(subject: Subject) -> int:
    """Mean gradients of both losses over (query, key), for one group."""
    return 2 * _itemsize(subject) * math.prod(subject.shape) * subject.space.length**2


def _weight_bytes(subject: Subject) -> int:
    """Mean gradients of W_Q and W_K of both losses for one group, if there are any."""
    with contextlib.suppress(NotApplicableError):
        return 2 * _itemsize(subject) * sum(w.numel() for pair in subject.projections() for w in pair)
    return 0


def _itemsize(subject: Subject) -> int:
    return max(4, subject.layers[0].dtype.itemsize)


def make_plan(
    subject: Subject,
    samples: np.ndarray,
    loss: str,
    *,
    groups: int,
    directions: int,
    draws: int,
    method: Method,
    memory_limit: int,
) -> Plan:
    """Fit batches, blocks of rows and kept matrices into ``memory_limit`` bytes beyond the weights and the data.

    draws: of the largest null or bootstrap. Raises ConfigError, naming what is needed, if one sequence and one query
    at a time are already too much.
    """
    space, heads, itemsize, n = subject.space, math.prod(subject.shape), _itemsize(subject), len(samples)
    targets, sequence = _differentiated(subject, samples, loss, method)
    sequence += 8 * heads * (3 * math.prod(space.layout.offsets) + targets * directions)  # profiles and projections
    # Projections and their parts; draws, their errors, and sorted copies; how often each draw takes each sequence.
    columns = directions + PLACES * (groups > 1)
    results = 8 * heads * columns * (4 * n * targets + 6 * draws) + 3 * 8 * draws * n
    # Of one query: scores, pattern and their products; gradients of every target, before and after folding.
    row = itemsize * subject.shape[1] * (5 + 4 * targets) * space.size
    least = results + sequence + row
    if least > memory_limit:
        reason = f"memory_limit is too small: {n} sequences and {directions} directions need about"
        raise ConfigError(f"{reason} {math.ceil(least / 2**20)} MiB", hint="raise it, or measure fewer")
    fits = groups * _group_bytes(subject) <= memory_limit / SHARE
    keep_scores = fits and groups > 1 and space.length <= DENSE_LIMIT
    # Besides, those of the group at work and of the whole, in float64.
    kept = groups * _group_bytes(subject) + 2 * 8 * heads * space.length**2 if keep_scores else 0
    kept += (groups + 2 * 8 // itemsize) * _weight_bytes(subject) if groups > 1 else 0
    budget = max(0, memory_limit - results - kept) / BUDGETS
    if subject.layers[0].device.type == "cpu":
        budget = min(budget, CPU_BYTES)
    longest = space.length if space.length <= DENSE_LIMIT else LONG_BLOCK
    batches = [
        max(1, min(most, subject.at_once or most, int(budget / (sequence + row * min(space.length, 64)))))
        for most in (n // groups, n)
    ]
    rows = [max(1, min(longest, int(budget / (batch * row)))) for batch in batches]
    return Plan(
        method=method, groups=groups, batch=batches[0], rows=rows[0], batch_of_all=batches[1], rows_of_all=rows[1],
        keep_scores=keep_scores,
    )  # fmt: skip


def _differentiated(subject: Subject, samples: np.ndarray, loss: str, method: Method) -> tuple[int, int]:
    """How many targets the loss has, and bytes of one sequence: its pass, measured with the gradients of one target
    and of the weights, and what every further target keeps.
    """
    one = most_padded(subject, samples)
    targets = ("targets", loss)
    measured = ("differentiated", loss, method, int(one[0]))

    def once() -> None:
        traced = trace(subject, one, loss, method=method)
        subject.footprints[targets] = traced.loss.targets.shape[1]
        total = traced.loss.targets[:, 0].sum()
        inputs = [call.output for call in traced.calls] + (traced.offsets or [])
        kept = [torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)]
        with contextlib.suppress(NotApplicableError):
            weights = [weight for pair in subject.projections() for weight in pair]
            outputs = [x for call in traced.calls for x in (call.q, call.k)]
            kept.append(torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True))
            moved = [movement(x, weight, weight.detach()) for x, weight in zip(outputs, weights, strict=True)]
            kept.append((*moved, *torch.autograd.grad(total, outputs, retain_graph=True, materialize_grads=True)))

    if measured not in subject.footprints:
        with subject.differentiable():
            subject.footprints[measured] = peak_bytes(once)
    size = subject.space.size
    of_outputs = sum(layer.heads * layer.d_head * layer.dtype.itemsize for layer in subject.layers) * size
    of_offsets = sum(layer.heads * layer.dtype.itemsize for layer in subject.layers) * size**2
    count = subject.footprints[targets]
    return count, subject.footprints[measured] + count * (of_outputs + (of_offsets if method == "dense" else 0))
