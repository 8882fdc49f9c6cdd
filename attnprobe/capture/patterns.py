"""The attention patterns of one sequence, made from its queries and keys when somebody wants to look at them."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.scores.call import AttentionCall

if TYPE_CHECKING:
    from attnprobe.capture.subject import Subject


@torch.no_grad()
def patterns(subject: "Subject", sample: int, layers: Collection[int] | None = None) -> dict[int, Tensor]:
    """Layer -> its pattern (1, head, query, key) in at least float32, on the CPU; all layers by default.

    Every position is there that the model was given, leading tokens and padding included. Rows sum to one (to less
    where sinks take weight); that of a query which sees nothing is zero. Padded queries, which nothing reads, may see
    other keys in the model.

    Raises ConfigError if there is no such sample or layer, NotApplicableError where samples are pairs or a layer does
    not let the subject's positions attend to each other.
    """
    if not 0 <= sample < subject.samples:
        raise ConfigError(f"there is no sample {sample}", hint=f"they are numbered from 0 to {subject.samples - 1}")
    if subject.per_sample > 1:
        raise NotApplicableError("samples are pairs of sequences", hint="patterns are shown of one sequence")
    found: dict[int, Tensor] = {}

    def keep(call: AttentionCall) -> None:
        if layers is None or call.layer in layers:
            found[call.layer] = _pattern(call, subject.space.size)

    subject.run(np.array([sample]), observe=keep)
    missing = sorted(set(layers or ()) - set(found))
    if missing or not found:
        named = f"no layer {missing[0]}" if missing else "no attention layer"
        raise ConfigError(f"this model has {named}", hint="layers are numbered from 0, in the order of their calls")
    return found


def _pattern(call: AttentionCall, size: int) -> Tensor:
    if call.q.shape[-2:-1] != call.k.shape[-2:-1] or call.q.shape[-2] != size:
        reason = f"layer {call.layer} has {call.q.shape[-2]} queries and {call.k.shape[-2]} keys"
        hint = f"shown is attention of all {size} positions to each other; name other layers, or watch(only=...)"
        raise NotApplicableError(reason, hint=hint)
    pattern, visible = call.pattern(), call.visible
    if visible is not None:
        pattern = torch.where(visible.any(-1, keepdim=True), pattern, 0.0)  # a padded query may see nothing
    return pattern.cpu()
