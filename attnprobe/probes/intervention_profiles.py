"""Profiles by offset, as things to add to the scores: the model's own, shuffled ones, and the dense score offsets."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import AttentionCall, Transformer
from attnprobe.objectives import sequences
from attnprobe.probes.sequences import Progress, check_finite, space_of
from attnprobe.scores.directions import DENSE_LIMIT, Direction, ScoreSpace, norm_and_means
from attnprobe.scores.offset_sums import pair_counts, score_moments
from attnprobe.tasks import Batch, Split


def dense_space(model: Transformer) -> ScoreSpace:
    """Raises NotApplicableError above 1024 positions, with the memory that would take."""
    space = space_of(model)
    if space.length > DENSE_LIMIT:
        gib = len(model.blocks) * model.config.heads * space.size**2 * 4 / 2**30
        reason = f"an intervention on {space.length} positions needs {gib:.1f} GiB of score offsets"
        raise NotApplicableError(reason, hint=f"the limit is {DENSE_LIMIT} positions")
    return space


def offset_profile_of(
    model: Transformer,
    split: Split,
    *,
    n: int | None = None,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """``offset_profile`` on ``n`` sequences drawn with ``seed`` (all of the split by default); any length."""
    index = np.random.default_rng(seed).permutation(len(split))[:n]
    parameter, length = next(model.parameters()), model.spec.length
    sequence = parameter.element_size() * length * (40 * model.config.d_model + 3 * model.config.d_mlp)
    batch = max(1, min(256, memory_limit // (4 * sequence)))
    return offset_profile(model, split, index=index, batch=batch, progress=progress)


@torch.no_grad()
def offset_profile(
    model: Transformer, split: Split, *, index: np.ndarray, batch: int, progress: Progress | None = None
) -> Tensor:
    """Mean row-centred score at every offset, (layer, head, *offsets) float64 on the CPU; 0 where never seen.

    Each query's scores are centred over the keys it can see. Class tokens are left out as queries and as keys.
    """
    space = space_of(model)
    calls: list[AttentionCall] = []
    shape = (len(model.blocks), model.config.heads, *space.layout.offsets)
    sums, counts = torch.zeros(shape, dtype=torch.float64), torch.zeros(space.layout.offsets, dtype=torch.float64)
    for part in batches(split, index, batch, progress):
        part = sequences(model, part)
        valid = None if model.config.padding == "attended" else part.valid
        calls.clear()
        model(part.inputs, valid=part.valid, observe=calls.append)
        for call in calls:
            check_finite(call)
            q, k = (x[..., space.leading :, :].double() for x in (call.q, call.k))
            moments, _ = score_moments(q, k, space.layout, scale=call.scale, valid=valid)
            sums[call.layer] += moments.sum(0).cpu()
        pairs = pair_counts(space.layout, valid).cpu()
        counts += pairs.sum(0) * (len(part.inputs) // len(pairs))
    return sums / counts.clamp(min=1)


def shuffled_profiles(space: ScoreSpace, profile: Tensor, number: int, generator: np.random.Generator) -> list[Tensor]:
    """The values of each head permuted over the offsets, then scaled to the norm of the row-centred original."""
    reachable = space.layout.reachable()

    def norm(p: Tensor) -> Tensor:
        return norm_and_means(space, Direction(name="", profile=p))[0]

    shuffled = []
    for _ in range(number):
        values = torch.from_numpy(generator.permuted(profile[..., reachable].numpy(), axis=-1))
        mixed = torch.zeros_like(profile)
        mixed[..., reachable] = values
        factor = torch.nan_to_num(norm(profile) / norm(mixed), nan=0.0, posinf=0.0)
        mixed *= factor.reshape(*factor.shape, *(1 for _ in space.layout.shape))
        shuffled.append(mixed)
    return shuffled


def score_offsets(model: Transformer, space: ScoreSpace, profile: Tensor) -> dict[int, Tensor]:
    """Profile (layer, head, *offsets) -> layer -> (1, head, size, size) for ``score_offsets``; 0 at class tokens."""
    margins = (space.leading, 0, space.leading, 0)
    profile = profile.to(next(model.parameters()))
    return {layer: F.pad(space.expand(p, slice(0, space.length)), margins)[None] for layer, p in enumerate(profile)}


def batch_size(model: Transformer, space: ScoreSpace, memory_limit: int, *, kept: int = 0) -> int:
    """Sequences at once: scores, mask and pattern of one layer, and its activations, in half of what is left.

    kept: bytes of the matrices over (query, key) that are held all the time. Raises ConfigError if they leave no room
    for one sequence.
    """
    floats = 4 * model.config.heads * space.size**2 + space.size * (12 * model.config.d_model + model.config.d_mlp)
    sequence = next(model.parameters()).element_size() * floats
    if kept + sequence > memory_limit:
        reason = f"memory_limit is too small: {space.length} positions need about"
        raise ConfigError(f"{reason} {math.ceil((kept + sequence) / 2**20)} MiB", hint="raise it")
    return max(1, min(256, (memory_limit - kept) // (2 * sequence)))


def offset_bytes(model: Transformer, space: ScoreSpace) -> int:
    """Of ``score_offsets``, with room for the index and the copies that one layer takes while it is made."""
    layer = model.config.heads * space.size**2 * next(model.parameters()).element_size()
    return (len(model.blocks) + 1) * layer + 4 * 8 * space.length**2


def batches(split: Split, index: np.ndarray, batch: int, progress: Progress | None = None) -> Iterator[Batch]:
    for first in range(0, len(index), batch):
        yield split.batch(torch.as_tensor(index[first : first + batch], device=split.labels.device))
        if progress is not None:
            progress(min(first + batch, len(index)), len(index))


def selection(model: Transformer, layers: Sequence[int] | None, heads: Sequence[int] | None) -> Tensor:
    """1 at the chosen (layer, head), 0 elsewhere, with one more axis of size 1 per axis of offsets."""
    where = torch.zeros(len(model.blocks), model.config.heads, dtype=torch.float64)
    rows = list(range(len(model.blocks)) if layers is None else layers)
    columns = list(range(model.config.heads) if heads is None else heads)
    for name, asked, there in (("layer", rows, where.shape[0]), ("head", columns, where.shape[1])):
        if not asked or not all(0 <= number < there for number in asked):
            raise NotApplicableError(
                f"no such {name} in {asked}: this model has {there}, counted from 0",
                hint="leave the option out to take all of them",
            )
    where[np.ix_(rows, columns)] = 1.0
    return where.reshape(*where.shape, *(1 for _ in model.spec.grid or (0,)))
