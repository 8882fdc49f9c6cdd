"""From samples to the queries and keys of real positions, the same for every probe of scores."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall

Progress = Callable[[int, int], None]  # is told (what is done, what there is to do)


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """For part ``number`` of several equal ones: what it reports counts as its part of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, parts * total)


def batches(samples: np.ndarray, size: int, progress: Progress | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Where each batch stands among the samples, and the batch; what is done is reported after each."""
    for first in range(0, len(samples), size):
        span = slice(first, min(first + size, len(samples)))
        yield span, samples[span]
        if progress is not None:
            progress(span.stop, len(samples))


def by_sample(subject: Subject, values: Tensor) -> Tensor:
    """Sums per sequence (sequence, ...) -> per sample (sample, ...): the two of a pair are added."""
    return values if subject.per_sample == 1 else values.unflatten(0, (-1, subject.per_sample)).sum(1)


def position_channels(subject: Subject, call: AttentionCall) -> tuple[Tensor, Tensor]:
    """q and k (sequence, head, length, d_head) of one layer, without leading tokens, in at least float32.

    Raises NotApplicableError, naming layer and head, if they are not finite.
    """
    check_call(subject, call)
    q, k = (t[..., subject.space.leading :, :] for t in (call.q, call.k))
    q, k = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (q, k))
    return q, k


def seen(subject: Subject, call: AttentionCall) -> Tensor | None:
    """(sequence, length) bool: the positions that are no padding to the model; None = all."""
    valid = call.visibility.valid
    return None if valid is None else valid[:, subject.space.leading :]


def check_call(subject: Subject, call: AttentionCall) -> None:
    """Raise NotApplicableError if this is no attention of the subject's positions to each other, if a position sees
    others than the subject's layout says, or, naming layer and head, if anything the scores are made of is NaN or
    infinite.
    """
    size = subject.space.size
    if call.q.shape[-2] != size or call.k.shape[-2] != size:
        found = f"{call.q.shape[-2]} queries and {call.k.shape[-2]} keys"
        raise NotApplicableError(
            f"layer {call.layer} has {found}, but there are {size} positions",
            hint="probes of scores need attention of all positions to each other",
        )
    rules = call.visibility
    others = (rules.window, rules.block, rules.dense) != (None, None, None)
    if others or rules.causal != subject.space.layout.causal:
        raise NotApplicableError(
            f"layer {call.layer} lets positions see others than all, or all before them",
            hint="probes of scores know causality and padding, no other rule",
        )
    for name in ("q", "k", "v", "output"):
        broken = ~getattr(call, name).isfinite().all(-1).all(-1).all(0)
        if bool(broken.any()):
            head = int(broken.nonzero()[0])
            raise NotApplicableError(
                f"layer {call.layer}, head {head}: {name} holds NaN or infinite values",
                hint="the training may have diverged",
            )
