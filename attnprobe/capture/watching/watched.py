"""A foreign torch model with its inputs as the subject of a probe."""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnprobe.capture.arrays import check_grid
from attnprobe.capture.subject import Capture, Loss, ScoreOffsets, Subject
from attnprobe.capture.unfrozen import unfrozen
from attnprobe.capture.watching import start
from attnprobe.capture.watching.checks import rebuild, same_before
from attnprobe.capture.watching.collector import Collector, Place
from attnprobe.capture.watching.functions import watching_functions
from attnprobe.capture.watching.inputs import Batch, Inputs
from attnprobe.capture.watching.registry import WAY as REGISTRY
from attnprobe.capture.watching.registry import watching_registry
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout

ROWS = 3  # queries of every call that are rebuilt in every pass; in the first one all are
LEAK = 1e-5  # change of an earlier output, as a share of the largest, that rounding explains


class Watched(Subject):
    """Passes leave the model as it was: mode, weights, kernels and masks. Made by ``watch``."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, *, grid: tuple[int, int] | None, leading: int | None, only: str,
        losses: Mapping[str, "ForeignLoss"], initialise: start.Initialise | None, labels: np.ndarray | None,
    ) -> None:  # fmt: skip
        self.model, self.inputs, self.only, self.losses = model, inputs, only, losses
        self.initialise, self.labels = initialise, labels
        self.samples, self.weights = inputs.samples, dict[str, Tensor]()
        self.places: Mapping[Place, int] | None = None
        self.ways = (True, True)  # the registry, the functions
        first = self._first_pass()
        self.space = first.space(grid, leading)
        self.capture = self._capture = first.capture
        if self.space.layout.causal:
            first.capture.leak = self._look_ahead(first.output)

    def _first_pass(self) -> "FirstPass":
        """Number the calls, see which ways are needed, rebuild every output. NotApplicableError if there is none."""
        first = FirstPass()
        with torch.no_grad():
            collector = self._pass(np.zeros(1, dtype=np.int64), first.add)[1]
        if not first.capture.calls:
            reason = f"no attention was seen in {type(self.model).__name__}"
            hint = "seen are Hugging Face's AttentionInterface, scaled_dot_product_attention, nn.MultiheadAttention, "
            raise NotApplicableError(reason, hint=hint + "and softmax(scores) times values over four axes")
        self.places = dict(collector.places)
        self.ways = (REGISTRY in collector.ways, collector.ways != {REGISTRY})
        first.capture.way = " and ".join(sorted(collector.ways))
        return first

    @torch.no_grad()
    def _look_ahead(self, before: Tensor) -> float | None:
        """Largest change of what earlier queries of the last call are given when the last input changes; None if the
        model has no input that one could change.
        """
        last_call: list[Tensor] = [before]
        batch = self.inputs.with_another_last(self.space.size)
        if batch is None:
            return None

        def keep(call: AttentionCall) -> None:
            last_call[0] = call.output

        self._pass(np.zeros(1, dtype=np.int64), keep, batch=batch)
        apart = same_before(before, last_call[0], batch.last)
        if not apart <= LEAK:
            reason = f"changing the last input changes what earlier positions are given by {apart:.1e}"
            raise NotApplicableError(reason, hint="the model's masks say that it is causal, but it is not")
        return apart

    def run(
        self, samples: np.ndarray, *, observe: Observer | None = None, score_offsets: ScoreOffsets | None = None
    ) -> None:
        self._checked_pass(samples, observe, score_offsets)

    def loss(
        self, name: str, samples: np.ndarray, *, observe: Observer | None = None,
        score_offsets: ScoreOffsets | None = None,
    ) -> Loss:  # fmt: skip
        if name not in self.losses:
            return super().loss(name, samples)
        asked = self.losses[name]
        batch = asked.prepare(self.inputs.take(samples), samples)
        return asked.of(self._checked_pass(samples, observe, score_offsets, batch=batch), batch, samples)

    def _checked_pass(
        self, samples: np.ndarray, observe: Observer | None, score_offsets: ScoreOffsets | None, *, batch: Any = None
    ) -> Any:
        """A pass of which some queries are rebuilt, unless something is added to the scores."""

        def check(call: AttentionCall) -> None:
            if len(call.q) != len(samples):
                reason = f"{call.name} attends {len(call.q)} times over parts of {len(samples)} sequences"
                raise NotApplicableError(reason, hint="probes of scores need attention of all positions to each other")
            if not score_offsets:
                self._capture.note(*rebuild(call, rows=ROWS))
            if observe is not None:
                observe(call)

        return self._pass(samples, check, score_offsets, batch=batch)[0]

    def _pass(
        self, samples: np.ndarray, observe: Observer, score_offsets: ScoreOffsets | None = None, *, batch: Any = None
    ) -> tuple[Any, Collector]:
        """The model's output, and who attended."""
        batch = self.inputs.take(samples) if batch is None else batch
        real = self.inputs.real(samples)
        collector = Collector(
            self.model, observe, score_offsets=score_offsets, places=self.places, only=self.only, real=real
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            if self.ways[0]:
                stack.enter_context(watching_registry(collector))
            if self.ways[1]:
                stack.enter_context(watching_functions(collector, len(samples)))
            output = batch.run(self._model)
        collector.finish()
        return output, collector

    def _model(self, *args: Any, **kwargs: Any) -> Any:
        """The model, with the weights that were drawn anew or exchanged."""
        if not self.weights:
            return self.model(*args, **kwargs)
        return torch.func.functional_call(self.model, self.weights, args, kwargs)

    def real(self, samples: np.ndarray) -> Tensor | None:
        real = self.inputs.real(samples)
        return None if real is None or bool(real.all()) else real[:, self.space.leading :]

    def differentiable(self) -> contextlib.AbstractContextManager[None]:
        return unfrozen(self.model)

    def redrawn(self, seed: int) -> "Watched":
        drawn = start.drawn_anew(self.model, self._entries, self.initialise, seed)
        return self._with(weights=self.weights | drawn)

    @functools.cached_property
    def _entries(self) -> dict[str, dict[str, Tensor]]:
        """Which entries of which parameters are W_Q and W_K (with their biases and norms)."""
        calls: list[AttentionCall] = []
        with torch.inference_mode(False), torch.enable_grad(), self.differentiable():
            self._pass(np.zeros(1, dtype=np.int64), calls.append)
            return start.entries_of_scores(self.model, calls)

    def with_projections_of(self, donor: Subject, layers: Sequence[int] | None = None) -> "Watched":
        """Layers that share a module share what they are given."""
        ours, theirs = self._entries, donor._entries if isinstance(donor, Watched) else {}
        names, shapes = list(self.places or {}), [
            {(owner, name): mask.shape for owner, masks in entries.items() for name, mask in masks.items()}
            for entries in (ours, theirs)
        ]  # fmt: skip
        if not isinstance(donor, Watched) or shapes[0] != shapes[1]:
            reason = "W_Q and W_K can only be swapped between models of one architecture and size"
            raise NotApplicableError(reason, hint="swap between checkpoints of one model")
        chosen = {names[layer][0] for layer in (range(len(names)) if layers is None else layers)}
        weights = {}
        for owner in chosen:
            for name, mask in ours[owner].items():
                full = f"{owner}.{name}".removeprefix(".")
                own, other = (
                    subject.weights.get(full, subject.model.get_parameter(full)).detach() for subject in (self, donor)
                )
                weights[full] = torch.where(mask, other, own)
        return self._with(weights=self.weights | weights)

    def double(self) -> "Watched":
        weights = {name: weight.double() for name, weight in self.weights.items()}
        return self._with(model=copy.deepcopy(self.model).double(), inputs=self.inputs.double(), weights=weights)

    def reordered(self, order: np.ndarray) -> "Watched":
        return self._with(inputs=self.inputs.reordered(torch.as_tensor(order), leading=self.space.leading))

    def _with(self, **changes: Any) -> "Watched":
        other = copy.copy(self)
        other.capture = other._capture = dataclasses.replace(self._capture)
        for name, value in changes.items():
            setattr(other, name, value)
        return other


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignLoss:
    """A loss of a foreign model: what its inputs are for it, and what it makes of the output."""

    of: Callable[[Any, Batch, np.ndarray], Loss]  # (output, inputs, samples) -> loss
    prepare: Callable[[Batch, np.ndarray], Batch] = lambda inputs, samples: inputs  # hides some, for instance
    what: str = ""  # what is told, and by which head


class FirstPass:
    """What the first sequence showed; of all that is seen only the output of the last call is kept."""

    def __init__(self) -> None:
        self.capture = Capture(way="", calls=0, error=0.0, allowed=0.0, leak=None)
        self.size, self.causal, self.output = 0, True, torch.empty(0)
        self.windows = set[int | None]()

    def add(self, call: AttentionCall) -> None:
        if not self.capture.calls:
            self.size = call.q.shape[2]
        self.capture.note(*rebuild(call))
        self.capture.calls += 1
        self.causal &= call.visibility.causal
        self.windows.add(call.visibility.window)
        self.output = call.output

    def space(self, grid: tuple[int, int] | None, leading: int | None) -> ScoreSpace:
        """Where the positions of the first call lie."""
        if leading is None:
            leading = 0 if grid is None else self.size - math.prod(grid)
        if not 0 <= leading < self.size:
            raise ConfigError(f"{self.size} positions cannot hold {grid}", hint="give (height, width) in patches")
        check_grid(grid, self.size - leading)
        window = next(iter(self.windows)) if len(self.windows) == 1 else None  # which all layers share
        shape = grid or (self.size - leading,)
        return ScoreSpace(layout=Layout(shape=shape, causal=self.causal, window=window), leading=leading)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every module is in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def watch(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    grid: tuple[int, int] | None = None,
    leading: int | None = None,
    valid: Any = None,
    only: str = "*",
    labels: Any = None,
    losses: Mapping[str, ForeignLoss] | None = None,
    initialise: start.Initialise | None = None,
) -> Watched:
    """A subject from any torch module and inputs for it; the module's own kernels and masks do the work.

    batches: inputs as the model is called with them: a tensor, a tuple of arguments, or a mapping of keyword
    arguments, with the sequences along the first axis and of one length throughout. grid: (height, width) where
    positions are patches row by row; leading: how many positions come before them (class token, registers), by default
    what the grid leaves. valid: (sequence, length) bool, False at padding; by default ``attention_mask`` if there is
    one. only: pattern of the names of the modules whose attention counts, such as "encoder.*". initialise: called on a
    copy of a module that attends, gives its parameters the values with which training starts; Hugging Face models
    know how. losses: "reconstruction" or "label" to what computes them.

    A first pass rebuilds every output from what was seen (``Subject.capture`` says how well), and every later pass a
    few queries of every call. Raises NotApplicableError if no attention is seen, if one is not softmax(scores) times
    values as it was seen, or if a model that hides the future looks ahead all the same; ConfigError for batches that
    do not fit each other.

    >>> import torch, attnprobe as ap
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> subject = ap.watch(torch.nn.TransformerEncoder(layer, 2), [torch.randn(9, 11, 8)])
    >>> [(layer.name, layer.heads) for layer in subject.layers]
    [('layers.0.self_attn', 2), ('layers.1.self_attn', 2)]
    """
    if hasattr(model, "_orig_mod"):
        raise NotApplicableError("a compiled model hides its attention", hint="watch the model before torch.compile")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    given = Inputs.of(batches, valid=valid, device=device)
    found = None if labels is None else np.asarray(labels)
    if found is not None and len(found) != given.samples:
        raise ConfigError(f"{len(found)} labels for {given.samples} sequences", hint="give one for each")
    return Watched(
        model, given, grid=grid, leading=leading, only=only, losses=losses or {}, labels=found,
        initialise=initialise,
    )  # fmt: skip
