"""From samples to the queries and keys of real positions, the same for every probe of scores."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall, Transformer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Split

Progress = Callable[[int, int], None]  # is told (what is done, what there is to do)


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """For part ``number`` of several equal ones: what it reports counts as its part of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, parts * total)


def layout_of(model: Transformer, split: Split) -> Layout:
    """Raises NotApplicableError if there is only one position."""
    spec = model.spec
    shape = spec.grid or (split.inputs.shape[2 if spec.pairs else 1],)
    layout = Layout(shape=shape, causal=model.config.causal)
    if layout.length < 2:
        raise NotApplicableError("this probe needs at least two positions", hint="use a task with longer sequences")
    return layout


def space_of(model: Transformer) -> ScoreSpace:
    """Raises NotApplicableError where scores cannot matter: no attention layer, or a single position."""
    if len(getattr(model, "blocks", ())) == 0:
        raise NotApplicableError(
            "this model has no attention layer, so it has no scores",
            hint="choose a checkpoint of a model with attention",
        )
    if model.spec.length < 2:
        raise NotApplicableError(
            "a sequence of one position has one score per head: its softmax is always 1",
            hint="choose a task with longer sequences",
        )
    layout = Layout(shape=model.spec.grid or (model.spec.length,), causal=model.config.causal)
    return ScoreSpace(layout=layout, leading=int(model.config.readout == "token"))


def draw_samples(split: Split, n: int, generator: np.random.Generator) -> Tensor:
    """``n`` different samples (or all, if there are fewer), in the order of the split, on its device."""
    chosen = np.sort(generator.choice(len(split), min(n, len(split)), replace=False))
    return torch.from_numpy(chosen).to(split.labels.device)


def load_sequences(model: Transformer, split: Split, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Inputs and validity of the samples ``index``, both sequences of a pair one after the other."""
    batch = split.batch(index)
    batch = batch.unpaired() if model.spec.pairs else batch
    return batch.inputs, None if batch.valid is None or bool(batch.valid.all()) else batch.valid


def by_sample(model: Transformer, values: Tensor) -> Tensor:
    """Sums per sequence (sequence, ...) -> per sample (sample, ...): the two of a pair are added."""
    return values.unflatten(0, (-1, 2)).sum(1) if model.spec.pairs else values


def position_channels(model: Transformer, call: AttentionCall) -> tuple[Tensor, Tensor]:
    """q and k (sequence, head, length, d_head) of one layer, without the class token, in at least float32.

    Raises NotApplicableError, naming layer and head, if they are not finite.
    """
    check_finite(call)
    q, k = (t[..., 1:, :] if model.config.readout == "token" else t for t in (call.q, call.k))
    q, k = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (q, k))
    return q, k


def check_finite(call: AttentionCall) -> None:
    """Raise NotApplicableError naming layer and head if anything the scores are made of is NaN or infinite."""
    for name in ("q", "k", "v", "output"):
        broken = ~getattr(call, name).isfinite().all(-1).all(-1).all(0)
        if bool(broken.any()):
            head = int(broken.nonzero()[0])
            raise NotApplicableError(
                f"layer {call.layer}, head {head}: {name} holds NaN or infinite values",
                hint="the training may have diverged",
            )
