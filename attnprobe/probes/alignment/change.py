"""How the scores differ between two subjects, as a direction to project gradients on."""

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.interventions.profiles import offset_profile
from attnprobe.probes.memory import MEMORY_LIMIT, pass_bytes, sequences_at_once
from attnprobe.probes.sequences import Progress, batches, check_call, part_of, seen
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.directions import DENSE_LIMIT, Direction


def change_of_scores(
    before: Subject,
    after: Subject,
    *,
    n: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    name: str = "change",
    progress: Progress | None = None,
) -> Direction:
    """Mean scores of ``after`` minus those of ``before`` on the ``n`` samples that every probe draws with ``seed``,
    layer by layer and head by head; above 1024 positions only their part that depends on the offset. ``progress`` is
    told (sequences done, sequences to do), both subjects together.

    Raises NotApplicableError if the two subjects' scores have different shapes.
    """
    space = before.space
    if (space, before.shape) != (after.space, after.shape):
        raise NotApplicableError(
            "scores can only be compared between models of the same task, depth and heads",
            hint="compare checkpoints of runs with the same task and the same model settings",
        )
    samples, means = before.draw(n, seed), []
    long = space.length > DENSE_LIMIT
    for number, subject in enumerate((before, after)):
        measure = offset_profile if long else mean_scores
        means.append(measure(subject, samples, memory_limit=memory_limit, progress=part_of(progress, number, 2)))
    change = means[1].sub_(means[0])
    return Direction(name=f"{name} by offset", profile=change) if long else Direction(name=name, matrix=change)


@torch.no_grad()
def mean_scores(
    subject: Subject,
    samples: np.ndarray,
    *,
    memory_limit: int = MEMORY_LIMIT,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Mean score of each (query, key) pair over the sequences that have both: (layer, head, length, length) float64.

    Leading tokens are left out; pairs that no sequence has, and keys hidden by causality, are zero. batch: samples at
    once, as many as ``memory_limit`` bytes hold by default; they hold the scores of another subject too.
    """
    space, (layers, heads) = subject.space, subject.shape
    matrices = heads * space.size**2  # scores as they are, and twice in float64
    sample = pass_bytes(subject, samples) + subject.per_sample * matrices * (subject.layers[0].dtype.itemsize + 16)
    kept = 3 * 8 * layers * heads * space.length**2
    batch = batch or sequences_at_once(subject, sample, memory_limit, kept=kept)
    sums = torch.zeros(layers, heads, space.length, space.length, dtype=torch.float64)
    counts = torch.zeros(space.length, space.length, dtype=torch.float64)
    visible = space.visible(slice(0, space.length))

    def add(call: AttentionCall) -> None:
        check_call(subject, call)
        valid = seen(subject, call)
        real = torch.ones(len(call.q), space.length) if valid is None else valid.cpu()
        real = real.double()
        if call.layer == 0:
            counts.add_(visible * (real.mT @ real))
        scores = call.scores()[..., space.leading :, space.leading :].double().cpu()
        # Hidden keys and padded positions count for nothing.
        scores *= real[:, None, :, None]
        scores *= real[:, None, None, :]
        sums[call.layer] += scores.sum(0) * visible

    for _, part in batches(samples, batch, progress):
        subject.run(part, observe=add)
    return sums.div_(counts.clamp(min=1))
