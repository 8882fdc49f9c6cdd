"""Subject: the only thing a probe knows of a model and its data."""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.patterns import patterns
from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.streams import stream

ScoreOffsets = Mapping[int, Tensor]  # layer -> added to its scores, broadcastable to (sequence, head, query, key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss of some samples, as a function of few numbers of each: with logits as targets, that of any label follows.

    A sample's reconstruction loss is the mean over its own predicted positions, so every sample weighs the same.
    """

    targets: Tensor  # (sample, target): logits, or the loss itself
    of: Callable[[Tensor], Tensor]  # targets -> loss (sample,)
    accuracy: Tensor | None = None  # (sample,) share of the predictions that are right; None: nothing can be

    @property
    def value(self) -> Tensor:
        return self.of(self.targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """What the first call showed of one layer."""

    name: str  # of the module
    heads: int
    d_head: int
    channels: int  # of queries and keys as ``AttentionCall.channels`` gives them: d_head, and more under a bias
    dtype: torch.dtype
    device: torch.device


class Rotation(Protocol):
    """How positions turn queries and keys, pair of channels by pair of channels (rotary embedding)."""

    frequencies: np.ndarray  # radians per position of every pair

    def turn(self, x: Tensor) -> Tensor:
        """x (..., length, d_head), one row per position (without leading tokens) -> the same, turned."""
        ...

    def back(self, x: Tensor) -> Tensor:
        """The inverse of ``turn``."""
        ...


@dataclasses.dataclass(kw_only=True)
class Capture:
    """How a foreign model was watched, and how well that gives what its own kernels gave."""

    way: str  # AttentionInterface, functions, or both
    calls: int  # of attention in every pass
    error: float  # largest difference of pattern times values from the output so far, as a share of the largest value
    allowed: float  # what rounding explains
    leak: float | None  # causal models: change of earlier outputs when the last input changes; None: not tested

    def note(self, error: float, allowed: float) -> None:
        """Of one more call."""
        self.error, self.allowed = max(self.error, error), max(self.allowed, allowed)

    def __str__(self) -> str:
        text = f"{self.calls} calls seen by {self.way}; pattern times values equals their output up to {self.error:.1e}"
        text += f" of the largest value (allowed: {self.allowed:.1e})"
        return text if self.leak is None else f"{text}; no look ahead (up to {self.leak:.1e})"


class Subject(abc.ABC):
    """A model with sequences to run it on. ``run`` and the fields are needed, all else if a probe asks for it.

    Samples are named by their numbers 0 ... ``samples`` - 1, in arrays of int64.
    """

    space: ScoreSpace  # a line or a grid, causal or not, after leading tokens
    samples: int
    per_sample: int = 1  # sequences in a sample: two of a pair are run side by side, and their sums added
    labels: np.ndarray | None = None  # (samples,) int64 classes, negative = none; or float numbers
    rotation: Rotation | None = None  # None: queries and keys enter the scores as they were projected
    at_once: int | None = None  # most samples in a pass; None: as many as memory holds
    capture: Capture | None = None  # of a foreign model: how it was watched

    @abc.abstractmethod
    def run(
        self, samples: np.ndarray, *, observe: Observer | None = None, score_offsets: ScoreOffsets | None = None
    ) -> None:
        """A forward pass. Every attention call is handed to ``observe``, numbered by layer in the order of the calls;
        ``score_offsets`` are added to the scores, and can be differentiated where gradients are on.
        """

    def loss(
        self,
        name: str,
        samples: np.ndarray,
        *,
        observe: Observer | None = None,
        score_offsets: ScoreOffsets | None = None,
    ) -> Loss:
        """The loss "label" or "reconstruction", from a pass like that of ``run``."""
        raise NotApplicableError(f"this model has no loss called {name!r}", hint="choose a probe that needs no losses")

    def real(self, samples: np.ndarray) -> Tensor | None:
        """(sequence, length) bool, False at padding; None: there is none. A model may attend to padding all the same:
        what it sees is told by ``AttentionCall.visibility``.
        """
        return None

    def draw(self, n: int | None, seed: int) -> np.ndarray:
        """THE sampling rule of all probes: ``n`` different samples (all, if there are no more), in ascending order."""
        n = self.samples if n is None else min(n, self.samples)
        return np.sort(stream(seed, "samples").choice(self.samples, n, replace=False))

    @functools.cached_property
    def layers(self) -> Sequence[Layer]:
        """Found by running one sample. NotApplicableError if nothing attends or there is a single position."""
        calls: list[AttentionCall] = []
        with torch.no_grad():
            self.run(np.zeros(1, dtype=np.int64), observe=calls.append)
        if not calls:
            raise NotApplicableError(
                "this model has no attention layer, so it has no scores",
                hint="choose a checkpoint of a model with attention",
            )
        if self.space.length < 2:
            reason = "scores need at least two positions: the softmax of one position's single score is always 1"
            raise NotApplicableError(reason, hint="use a task with longer sequences")
        shapes = [(call.q.shape, call.q.dtype, call.q.device) for call in calls]
        return [
            Layer(
                name=call.name, heads=shape[1], d_head=shape[3], channels=call.channels()[0].shape[3], dtype=dtype,
                device=device,
            )
            for call, (shape, dtype, device) in zip(calls, shapes, strict=True)
        ]  # fmt: skip

    @functools.cached_property
    def footprints(self) -> dict[tuple[object, ...], int]:
        """What planners of memory found when they ran a pass, by what was run: bytes, and how many targets a loss has.
        Weights change none of it.
        """
        return {}

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, heads); NotApplicableError where layers differ in their number of heads."""
        heads = {layer.heads for layer in self.layers}
        if len(heads) > 1:
            raise NotApplicableError(
                "this probe needs the same number of heads in every layer", hint="proximity and decompose do not"
            )
        return len(self.layers), heads.pop()

    def to_bertviz(self, sample: int, *, layers: Collection[int] | None = None) -> list[Tensor]:
        """The attention of one sample as ``bertviz.head_view`` and ``model_view`` take it: the pattern (1, head, query,
        key) of every layer, or of the chosen ones. Nothing is kept; ``capture.patterns`` says what is in it.
        """
        return list(patterns(self, sample, layers).values())

    def to_circuitsvis(self, sample: int, *, layer: int) -> Tensor:
        """The attention of one sample in one layer as CircuitsVis' ``attention_heads`` takes it: (head, query, key)."""
        return patterns(self, sample, [layer])[layer][0]

    def differentiable(self) -> AbstractContextManager[object]:
        """While open, losses can be differentiated along the scores and parameters, even if these are frozen."""
        return contextlib.nullcontext()

    def projections(self) -> Sequence[tuple[Tensor, Tensor]]:
        """W_Q and W_K (head * d_head, d_model) of every layer."""
        raise NotApplicableError("this model does not show W_Q and W_K", hint="its subject must give them")

    def with_projections_of(self, donor: "Subject", layers: Sequence[int] | None = None) -> Self:
        """The same with W_Q and W_K (and their biases) of ``donor`` in the chosen layers (all by default)."""
        raise NotApplicableError(
            "this model does not show W_Q and W_K, so they cannot be exchanged", hint="its subject must give them"
        )

    def redrawn(self, seed: int) -> Self:
        """The same with W_Q and W_K (and their biases) of all layers drawn anew, as they were at the start of training.

        All else is shared, not copied. Different seeds, and different models, give independent draws.
        """
        raise NotApplicableError(
            "W_Q and W_K of this model cannot be drawn anew: nobody says how they start",
            hint="its subject must draw them; the null of permuted keys needs no weights",
        )

    def double(self) -> Self:
        """A copy that computes in float64."""
        raise NotApplicableError("this model cannot be copied to float64", hint="its subject must give the copy")

    def reordered(self, order: np.ndarray) -> Self:
        """The same model on the same samples with their positions in another order, the same for all: position i takes
        what stands at ``order[i]`` (length,), inputs and, with them, what a reconstruction predicts. Leading tokens and
        padding stay; a shorter sequence takes its real positions in the order in which ``order`` names them. Which
        positions a reconstruction hides must not depend on what stands there.
        """
        raise NotApplicableError(
            "this model cannot be given its sequences in another order",
            hint="its subject must give them reordered; or take the null of random phases, or none",
        )
