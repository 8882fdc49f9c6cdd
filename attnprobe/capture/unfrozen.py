"""Gradients through models that are partly frozen."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def unfrozen(model: nn.Module) -> Iterator[None]:
    """Frozen parameters would cut the graph before the attention outputs."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
