"""Plain queries and keys as the subject of a probe: no model, no task, no losses."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import ScoreOffsets, Subject
from attnprobe.errors import ConfigError
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.scores.visibility import Visibility

AXES = "(sequence, head, length, d_head)"


class Arrays(Subject):
    """Layers given as pairs (q, k), each of axes (sequence, head, length, d_head), as they enter the scores."""

    def __init__(
        self,
        layers: Sequence[tuple[Tensor, Tensor]],
        *,
        grid: tuple[int, int] | None,
        causal: bool,
        valid: Tensor | None,
        scale: float | None,
    ) -> None:
        self.pairs, self.valid, self.scale = layers, valid, scale
        self.samples, length = layers[0][0].shape[0], layers[0][0].shape[2]
        self.space = ScoreSpace(layout=Layout(shape=grid or (length,), causal=causal))

    def run(
        self, samples: np.ndarray, *, observe: Observer | None = None, score_offsets: ScoreOffsets | None = None
    ) -> None:
        """Score offsets change nothing here: there is nothing behind the scores."""
        chosen = torch.as_tensor(samples)
        visibility = Visibility(causal=self.space.layout.causal, valid=self.real(samples))
        for number, (q, k) in enumerate(self.pairs):
            q, k = q[chosen.to(q.device)], k[chosen.to(k.device)]
            if observe is not None:
                nothing = k[..., :0]  # neither values nor outputs are known
                scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
                observe(
                    AttentionCall(
                        layer=number, name=f"layer {number}", q=q, k=k, v=nothing, output=nothing, scale=scale,
                        visibility=visibility,
                    )
                )  # fmt: skip

    def real(self, samples: np.ndarray) -> Tensor | None:
        return None if self.valid is None else self.valid[torch.as_tensor(samples).to(self.valid.device)]


def arrays(
    q: Any,
    k: Any,
    *,
    grid: tuple[int, int] | None = None,
    causal: bool = False,
    valid: Any = None,
    scale: float | None = None,
) -> Subject:
    """A subject from queries and keys.

    q, k: one layer's arrays or tensors (sequence, head, length, d_head), or lists of them, one per layer (their numbers
    of heads may differ). grid: (height, width) where positions are pixels row by row. valid: (sequence, length) bool,
    False at padding. scale: of q . k, 1 / sqrt(d_head) by default.
    Raises ConfigError if the shapes do not fit each other.
    """
    several = isinstance(q, list | tuple)
    queries, keys = ([_tensor(x) for x in (given if several else [given])] for given in (q, k))
    if not queries or len(queries) != len(keys):
        raise ConfigError(
            f"{len(queries)} layers of queries and {len(keys)} of keys", hint="give as many keys as queries"
        )
    first = queries[0].shape
    for number, (one, other) in enumerate(zip(queries, keys, strict=True)):
        if one.dim() != 4 or one.shape != other.shape or (one.shape[0], one.shape[2]) != (first[0], first[2]):
            reason = f"layer {number}: q {tuple(one.shape)} and k {tuple(other.shape)} do not fit"
            raise ConfigError(reason, hint=f"both have axes {AXES}, with the same sequences and length in every layer")
    if not queries[0].numel():
        raise ConfigError(f"q and k are empty: {tuple(first)}", hint=f"they have axes {AXES}")
    check_grid(grid, first[2])
    mask = None if valid is None else torch.as_tensor(valid, dtype=torch.bool)
    if mask is not None and mask.shape != (first[0], first[2]):
        raise ConfigError(f"valid has shape {tuple(mask.shape)}", hint="it has axes (sequence, length)")
    return Arrays(list(zip(queries, keys, strict=True)), grid=grid, causal=causal, valid=mask, scale=scale)


def check_grid(grid: Any, length: int) -> None:
    """ConfigError unless it is None or the height and width of so many positions."""
    if grid is None:
        return
    whole = isinstance(grid, list | tuple) and all(isinstance(side, int | np.integer) and side > 0 for side in grid)
    if not whole or len(grid) != 2 or math.prod(grid) != length:
        raise ConfigError(f"a grid of {grid!r} has not {length} positions", hint="give (height, width)")


def _tensor(x: Any) -> Tensor:
    try:
        x = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"q and k must be arrays of numbers, not {type(x).__name__}", hint=AXES) from error
    if x.is_complex():
        raise ConfigError("q and k are complex; scores are real", hint="give real and imaginary parts as channels")
    return x if x.is_floating_point() else x.float()
