"""Profiles by offset, as things to add to the scores: the model's own, shuffled ones, and the dense score offsets."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.memory import pass_bytes, sequences_at_once
from attnprobe.probes.sequences import Progress, batches, check_call, seen
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.directions import DENSE_LIMIT, Direction, ScoreSpace, norm_and_means
from attnprobe.scores.offset_sums import pair_counts, score_moments
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
    memory_limit: int = 2 * 2**30,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Mean row-centred score at every offset, (layer, head, *offsets) float64 on the CPU; 0 where never seen.

    Each query's scores are centred over the keys it can see. Leading tokens are left out as queries and as keys. Any
    length; batch: samples at once, as many as ``memory_limit`` bytes hold by default.
    """
    layout, (layers, heads) = subject.space.layout, subject.shape
    bins, channels = layout.offsets, max(layer.heads * layer.d_head for layer in subject.layers)
    # Queries and keys in float64, centred, channels first; queries by frequency, and sums by offset.
    work = 8 * (8 * channels * layout.length + 4 * heads * int(np.prod(bins)))
    sample = pass_bytes(subject, samples) + subject.per_sample * work
    batch = batch or sequences_at_once(subject, sample, memory_limit)
    sums, counts = torch.zeros(layers, heads, *bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)

    def add(call: AttentionCall) -> None:
        check_call(subject, call)
        q, k = (x[..., subject.space.leading :, :].double() for x in (call.q, call.k))
        valid = seen(subject, call)
        moments, _ = score_moments(q, k, layout, scale=call.scale, valid=valid)
        sums[call.layer] += moments.sum(0).cpu()
        if call.layer == 0:
            pairs = pair_counts(layout, valid).cpu()
            counts.add_(pairs.sum(0) * (len(q) // len(pairs)))

    for _, part in batches(samples, batch, progress):
        subject.run(part, observe=add)
    return sums / counts.clamp(min=1)


def shuffled_profiles(space: ScoreSpace, profile: Tensor, number: int, seed: int) -> list[Tensor]:
    """The values of each head permuted over the offsets, then scaled to the norm of the row-centred original.

    Every control has a stream of its own, so one more changes none of the others.
    """
    reachable = space.layout.reachable()

    def norm(p: Tensor) -> Tensor:
        return norm_and_means(space, Direction(name="", profile=p))[0]

    shuffled = []
    for i in range(number):
        generator = stream(seed, "shuffled profile", str(i + 1))
        values = torch.from_numpy(generator.permuted(profile[..., reachable].numpy(), axis=-1))
        mixed = torch.zeros_like(profile)
        mixed[..., reachable] = values
        factor = torch.nan_to_num(norm(profile) / norm(mixed), nan=0.0, posinf=0.0)
        mixed *= factor.reshape(*factor.shape, *(1 for _ in space.layout.shape))
        shuffled.append(mixed)
    return shuffled


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
