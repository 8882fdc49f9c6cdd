"""What must hold of an attention call before anything is computed from it."""

from torch import Tensor

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall


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
            hint="probes of scores need attention of all positions to each other; --only leaves other modules out",
        )
    rules, layout = call.visibility, subject.space.layout
    if (rules.causal, rules.window, rules.block, rules.dense) != (layout.causal, layout.window, layout.block, None):
        raise NotApplicableError(
            f"layer {call.layer} lets positions see others than all, or all before them",
            hint="probes know padding, causality, and windows that all layers share (--only takes layers of one kind), "
            "but no blocks of positions behind a class token",
        )
    for name in ("q", "k", "v", "output"):
        broken = ~getattr(call, name).isfinite().all(-1).all(-1).all(0)
        if bool(broken.any()):
            head = int(broken.nonzero()[0])
            raise NotApplicableError(
                f"layer {call.layer}, head {head}: {name} holds NaN or infinite values",
                hint="the training may have diverged",
            )
