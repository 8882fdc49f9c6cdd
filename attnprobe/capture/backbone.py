"""Our model around a Hugging Face encoder as the subject of a probe: our data and heads, its attention watched."""

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.capture.ours import Ours
from attnprobe.capture.subject import Capture, ScoreOffsets, Subject
from attnprobe.capture.watching.checks import rebuild
from attnprobe.capture.watching.collector import Collector, Place
from attnprobe.capture.watching.registry import WAY, watching_registry
from attnprobe.errors import NotApplicableError
from attnprobe.models.hugging_face.projections import KEYS, QUERIES
from attnprobe.scores.call import AttentionCall, Observer

ROWS = 3  # queries of every call that are rebuilt in every pass; in the first one all are


class AroundBackbone(Ours):
    """As ``Ours``. In the first pass every output is rebuilt from what was seen, and some of every later one."""

    @functools.cached_property
    def _places(self) -> dict[Place, int]:
        """The numbers of the calls, in the order of the first pass."""
        self.capture = Capture(way=WAY, calls=0, error=0.0, allowed=0.0, leak=None)
        collector = Collector(self.model, self._count)
        batch = self.split.batch(torch.zeros(1, dtype=torch.int64, device=self.split.labels.device))
        inputs = batch.unpaired().inputs if self.model.spec.pairs else batch.inputs
        with torch.no_grad(), self.model.evaluating(), watching_registry(collector):
            self.model(inputs)
        return dict(collector.places)

    def _count(self, call: AttentionCall) -> None:
        assert self.capture is not None
        self.capture.note(*rebuild(call))
        self.capture.calls += 1

    @contextlib.contextmanager
    def _tapped(self, observe: Observer | None, score_offsets: ScoreOffsets | None) -> Iterator[None]:
        """While open, the one pass of the model is watched, whoever calls it."""
        places = self._places

        def told(call: AttentionCall) -> None:
            if not score_offsets and self.capture is not None:
                self.capture.note(*rebuild(call, rows=ROWS))
            if observe is not None:
                observe(call)

        collector = Collector(self.model, told, score_offsets=score_offsets, places=places)

        def look(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            valid: Tensor | None = kwargs.get("valid")
            collector.real = None if valid is None else F.pad(valid, (self.space.leading, 0), value=True)

        handle = self.model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with self.model.evaluating(), watching_registry(collector):
                yield
            collector.finish()
        finally:
            handle.remove()

    def projections(self) -> list[tuple[Tensor, Tensor]]:
        pairs = [(q.weight, k.weight) for q, k in query_and_key_layers(self.model)]
        if len(pairs) != len(self.layers) or any(q.shape != k.shape for q, k in pairs):
            reason = "this model has no W_Q and W_K of one shape for every layer"
            raise NotApplicableError(reason, hint="proximity and decompose need none")
        return pairs

    def with_projections_of(self, donor: Subject, layers: Sequence[int] | None = None) -> "AroundBackbone":
        mixed = copy.deepcopy(self.model)
        shapes = [[p.shape for pair in subject.projections() for p in pair] for subject in (self, donor)]
        if not isinstance(donor, AroundBackbone) or shapes[0] != shapes[1] or self.shape != donor.shape:
            reason = "W_Q and W_K can only be swapped between models of the same depth, width and heads"
            raise NotApplicableError(reason, hint="swap between checkpoints of runs with the same model settings")
        targets, sources = query_and_key_layers(mixed), query_and_key_layers(donor.model)
        for layer in range(len(targets)) if layers is None else layers:
            for target, source in zip(targets[layer], sources[layer], strict=True):
                target.load_state_dict(source.state_dict())
        return self._with(mixed)

    def draw(self, n: int | None, seed: int) -> np.ndarray:
        _ = self._places  # so that what was watched is known before the first question
        return super().draw(n, seed)


def query_and_key_layers(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """The linear layers W_Q and W_K of every attention, in the order of the layers, where they have names."""
    found = []
    for module in model.modules():
        children = dict(module.named_children())
        queries, keys = ([children[name] for name in names if name in children] for names in (QUERIES, KEYS))
        if len(queries) == len(keys) == 1:
            found.append((queries[0], keys[0]))
    return found
