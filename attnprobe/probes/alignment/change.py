"""How the scores differ between two checkpoints, as a direction to project gradients on."""

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall, Transformer
from attnprobe.objectives import sequences
from attnprobe.probes.intervention_profiles import batch_size, batches, offset_profile_of
from attnprobe.probes.sequences import Progress, check_finite, part_of, space_of
from attnprobe.scores.directions import DENSE_LIMIT, Direction
from attnprobe.tasks import Split


def change_of_scores(
    before: Transformer,
    after: Transformer,
    split: Split,
    *,
    n: int | None = None,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    name: str = "change",
    progress: Progress | None = None,
) -> Direction:
    """Mean scores of ``after`` minus those of ``before`` on ``n`` sequences drawn with ``seed``, layer by layer and
    head by head; above 1024 positions only their part that depends on the offset. ``progress`` is told (sequences done,
    sequences to do), both models together.

    Raises NotApplicableError if the two models' scores have different shapes.
    """
    space = space_of(before)
    shapes = [(space_of(model), len(model.blocks), model.config.heads) for model in (before, after)]
    if shapes[0] != shapes[1]:
        raise NotApplicableError(
            "scores can only be compared between models of the same task, depth and heads",
            hint="compare checkpoints of runs with the same task and the same model settings",
        )
    if space.length > DENSE_LIMIT:
        profiles = [
            offset_profile_of(
                m, split, n=n, memory_limit=memory_limit, seed=seed, progress=part_of(progress, number, 2)
            )
            for number, m in enumerate((before, after))
        ]
        return Direction(name=f"{name} by offset", profile=profiles[1] - profiles[0])
    chosen = np.random.default_rng(seed).permutation(len(split))[:n]
    kept = 3 * 8 * len(before.blocks) * before.config.heads * space.length**2  # two means and their scores
    batch = batch_size(before, space, memory_limit, kept=kept)
    means = [
        mean_scores(m, split, index=chosen, batch=batch, progress=part_of(progress, number, 2))
        for number, m in enumerate((before, after))
    ]
    return Direction(name=name, matrix=means[1].sub_(means[0]))


@torch.no_grad()
def mean_scores(
    model: Transformer, split: Split, *, index: np.ndarray, batch: int, progress: Progress | None = None
) -> Tensor:
    """Mean score of each (query, key) pair over the sequences that have both: (layer, head, length, length) float64.

    Class tokens are left out; pairs that no sequence has, and keys hidden by causality, are zero.
    """
    space = space_of(model)
    calls: list[AttentionCall] = []
    sums = torch.zeros(len(model.blocks), model.config.heads, space.length, space.length, dtype=torch.float64)
    counts = torch.zeros(space.length, space.length, dtype=torch.float64)
    visible = space.visible(slice(0, space.length))
    for part in batches(split, index, batch, progress):
        part = sequences(model, part)
        calls.clear()
        model(part.inputs, valid=part.valid, observe=calls.append)
        real = torch.ones(part.inputs.shape[:2], dtype=torch.float64)
        if part.valid is not None and model.config.padding == "masked":
            real = part.valid.double().cpu()
        counts += visible * (real.mT @ real)
        for call in calls:
            check_finite(call)
            scores = call.scores()[..., space.leading :, space.leading :].double().cpu()
            # Hidden keys and padded positions count for nothing.
            scores *= real[:, None, :, None]
            scores *= real[:, None, None, :]
            sums[call.layer] += scores.sum(0) * visible
    return sums.div_(counts.clamp(min=1))
