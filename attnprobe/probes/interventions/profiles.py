"""Profiles by offset, as things to add to the scores: the model's own, shuffled ones, and the dense score offsets."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.offset_profile import mean_profile
from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.memory import MEMORY_LIMIT, pass_bytes, sequences_at_once
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.directions import DENSE_LIMIT, ScoreSpace
from attnprobe.scores.shuffled_profiles import shuffled_profile
from attnprobe.streams import stream


def dense_space(subject: Subject) -> ScoreSpace:
    """Raises NotApplicableError above 1024 positions, with the memory that would take."""
    space, (layers, heads) = subject.space, subject.shape
    if space.length > DENSE_LIMIT:
        gib = layers * heads * space.size**2 * 4 / 2**30
        reason = f"an intervention on {space.length} positions needs {gib:.1f} GiB of score offsets"
        raise NotApplicableError(reason, hint=f"the limit is {DENSE_LIMIT} positions")
    return space


@torch.no_grad()
def offset_profile(
    subject: Subject,
    samples: np.ndarray,
    *,
    memory_limit: int = MEMORY_LIMIT,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Mean row-centred score at every offset, (layer, head, *offsets) float64 on the CPU; 0 where never seen.

    As ``mean_profile``, for any length. batch: samples at once, as many as ``memory_limit`` bytes hold by default.
    """
    layout, (_, heads) = subject.space.layout, subject.shape
    channels = max(layer.heads * layer.channels for layer in subject.layers)
    # Queries and keys in float64, centred, channels first; queries by frequency, and sums by offset.
    work = 8 * (8 * channels * layout.length + 4 * heads * int(np.prod(layout.offsets)))
    sample = pass_bytes(subject, samples) + subject.per_sample * work
    batch = batch or sequences_at_once(subject, sample, memory_limit)
    return mean_profile(subject, (part for _, part in batches(samples, batch, progress)))


def shuffled_profiles(space: ScoreSpace, profile: Tensor, number: int, seed: int) -> list[Tensor]:
    """``shuffled_profile`` several times. Every control has a stream of its own, so one more changes no other."""
    draws = (stream(seed, "shuffled profile", str(i + 1)) for i in range(number))
    return [shuffled_profile(space, profile, draw) for draw in draws]


def score_offsets(subject: Subject, profile: Tensor) -> dict[int, Tensor]:
    """Profile (layer, head, *offsets) -> layer -> (1, head, size, size) for ``score_offsets``; 0 at leading tokens."""
    space = subject.space
    margins, every = (space.leading, 0, space.leading, 0), slice(0, space.length)
    return {
        number: F.pad(space.expand(of_layer.to(layer.device, layer.dtype), every), margins)[None]
        for number, (layer, of_layer) in enumerate(zip(subject.layers, profile, strict=True))
    }


def offset_bytes(subject: Subject) -> int:
    """Of ``score_offsets``, with room for the index and the copies that one layer takes while it is made."""
    layers, heads = subject.shape
    layer = heads * subject.space.size**2 * subject.layers[0].dtype.itemsize
    return (layers + 1) * layer + 4 * 8 * subject.space.length**2


def selection(subject: Subject, layers: Sequence[int] | None, heads: Sequence[int] | None) -> Tensor:
    """1 at the chosen (layer, head), 0 elsewhere, with one more axis of size 1 per axis of offsets."""
    where = torch.zeros(subject.shape, dtype=torch.float64)
    rows = list(range(where.shape[0]) if layers is None else layers)
    columns = list(range(where.shape[1]) if heads is None else heads)
    for name, asked, there in (("layer", rows, where.shape[0]), ("head", columns, where.shape[1])):
        if not asked or not all(0 <= number < there for number in asked):
            raise NotApplicableError(
                f"no such {name} in {asked}: this model has {there}, counted from 0",
                hint="leave the option out to take all of them",
            )
    where[np.ix_(rows, columns)] = 1.0
    return where.reshape(*where.shape, *(1 for _ in subject.space.layout.shape))
