"""From samples to the queries and keys of real positions, the same for every probe of scores."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.calls import check_call as check_call
from attnprobe.capture.calls import seen as seen
from attnprobe.capture.subject import Subject
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
    """What the scores of one layer are inner products of (sequence, head, length, channel), without leading tokens and
    in at least float32: q and k, with further channels if the model adds a bias (``AttentionCall.channels``).

    Raises NotApplicableError, naming layer and head, if they are not finite.
    """
    check_call(subject, call)
    q, k = (t[..., subject.space.leading :, :] for t in call.channels())
    q, k = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (q, k))
    return q, k
