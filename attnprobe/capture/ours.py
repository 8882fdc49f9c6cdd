"""Our own Transformer with a split of its task as the subject of a probe."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.reordering import reordered_places
from attnprobe.capture.subject import Loss, ScoreOffsets, Subject
from attnprobe.capture.unfrozen import unfrozen
from attnprobe.errors import NotApplicableError
from attnprobe.models import Attention, Transformer
from attnprobe.models.initialisation import redraw
from attnprobe.models.parameter_sets import sets_of
from attnprobe.models.positions import BASE, Rotary
from attnprobe.objectives import (
    EVALUATION,
    CausalPrediction,
    Classification,
    MaskedReconstruction,
    Objective,
    Regression,
    label_outputs,
    reconstruction,
    sequences,
)
from attnprobe.scores.call import Observer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Batch, Split


def of(model: Transformer, split: Split, *, trained: Sequence[Objective] = (), seed: int = 0) -> "Ours":
    """Model and split on one device. trained: its objectives so far; the reconstruction is taken from them if one is
    there, else what fits the model. seed: of the masks.
    """
    own = reconstruction(trained, classes=model.target == "classes", causal=model.config.causal)
    if model.config.backbone is not None:
        from attnprobe.capture.backbone import AroundBackbone  # which is an ``Ours``

        return AroundBackbone(model, split, own, seed)
    return Ours(model, split, own, seed)


class Ours(Subject):
    """Passes use no dropout and leave the model as it was: mode, hooks and gradients."""

    def __init__(
        self, model: Transformer, split: Split, reconstruction: MaskedReconstruction | CausalPrediction, seed: int
    ) -> None:
        self.model, self.split, self.reconstruction, self.seed = model, split, reconstruction, seed
        self.orders: tuple[Tensor, ...] = ()  # of the positions, as ``reordered`` was told them
        spec, config = model.spec, model.config
        leading = int(config.readout == "token")
        window, block = windows(model, leading)
        shape = spec.grid or (split.inputs.shape[2 if spec.pairs else 1],)
        layout = Layout(shape=shape, causal=config.causal, window=window, block=block)
        self.space = ScoreSpace(layout=layout, leading=leading)
        self.samples, self.labels = len(split), split.labels.cpu().numpy()
        self.per_sample = 2 if spec.pairs else 1
        if config.positions == "rotary":
            self.rotation = OurRotation(attentions(model)[0].rotary, self.space.leading)

    def run(
        self, samples: np.ndarray, *, observe: Observer | None = None, score_offsets: ScoreOffsets | None = None
    ) -> None:
        batch = sequences(self.model, self._batch(samples))
        with self._tapped(observe, score_offsets):
            self.model(batch.inputs, valid=batch.valid)

    def loss(
        self,
        name: str,
        samples: np.ndarray,
        *,
        observe: Observer | None = None,
        score_offsets: ScoreOffsets | None = None,
    ) -> Loss:
        """ConfigError if the reconstruction makes no sense for the model."""
        batch = self._batch(samples)
        with self._tapped(observe, score_offsets):
            return self._label(batch) if name == "label" else self._reconstruction(batch)

    def _label(self, batch: Batch) -> Loss:
        objective = Regression() if self.model.spec.regression else Classification()
        objective.check(self.model.config, self.model.spec)
        outputs, labels = label_outputs(self.model, batch), batch.labels
        if self.model.spec.regression:
            return Loss(targets=outputs, of=lambda targets: (targets[:, 0] - labels).square())
        right = (outputs.argmax(-1) == labels).float()
        return Loss(
            targets=outputs, of=lambda targets: F.cross_entropy(targets, labels, reduction="none"), accuracy=right
        )

    def _reconstruction(self, batch: Batch) -> Loss:
        self.reconstruction.check(self.model.config, self.model.spec)
        losses = self.reconstruction.losses(self.model, batch, seed=self.seed, epoch=EVALUATION)
        count = losses.count.clamp(min=1)
        right = None if losses.correct is None else losses.correct / count
        return Loss(targets=(losses.loss / count)[:, None], of=lambda targets: targets[:, 0], accuracy=right)

    def real(self, samples: np.ndarray) -> Tensor | None:
        lengths = self.split.lengths
        if lengths is None:
            return None
        lengths = lengths[torch.as_tensor(samples, device=lengths.device)].flatten()
        valid = torch.arange(self.space.length, device=lengths.device) < lengths[:, None]
        return None if bool(valid.all()) else valid

    def _batch(self, samples: np.ndarray) -> Batch:
        batch = self.split.batch(torch.as_tensor(samples, device=self.split.labels.device))
        for order in self.orders:
            batch = reorder(batch, order, pairs=self.model.spec.pairs)
        return dataclasses.replace(batch, valid=None) if batch.valid is None or bool(batch.valid.all()) else batch

    @contextlib.contextmanager
    def _tapped(self, observe: Observer | None, score_offsets: ScoreOffsets | None) -> Iterator[None]:
        """While open, every pass of the model has these taps, whoever calls it (an objective, for instance)."""

        def add(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return args, kwargs | {"score_offsets": score_offsets, "observe": observe}

        handle = self.model.register_forward_pre_hook(add, with_kwargs=True)
        try:
            with self.model.evaluating():
                yield
        finally:
            handle.remove()

    def differentiable(self) -> contextlib.AbstractContextManager[None]:
        return unfrozen(self.model)

    def projections(self) -> list[tuple[Tensor, Tensor]]:
        return [(attention.q.weight, attention.k.weight) for attention in attentions(self.model)]

    def with_projections_of(self, donor: Subject, layers: Sequence[int] | None = None) -> "Ours":
        mixed = copy.deepcopy(self.model)
        shapes = [[p.shape for pair in subject.projections() for p in pair] for subject in (self, donor)]
        if not isinstance(donor, Ours) or shapes[0] != shapes[1] or self.shape != donor.shape:
            reason = "W_Q and W_K can only be swapped between models of the same depth, width and heads"
            raise NotApplicableError(reason, hint="swap between checkpoints of runs with the same model settings")
        targets, sources = attentions(mixed), attentions(donor.model)
        for layer in range(len(targets)) if layers is None else layers:
            targets[layer].q.load_state_dict(sources[layer].q.state_dict())
            targets[layer].k.load_state_dict(sources[layer].k.state_dict())
        return self._with(mixed)

    @functools.cached_property
    def _of_scores(self) -> set[str]:
        """Names of W_Q and W_K with their biases, looked up once for all draws."""
        return sets_of(self.model).get("qk", set())

    def redrawn(self, seed: int) -> "Ours":
        names = self._of_scores
        if not names:
            return super().redrawn(seed)
        model = copy.deepcopy(self.model, _all_but(self.model, names))
        digest = hashlib.blake2b(digest_size=7)  # of what they were, so that models share no draws
        for name in sorted(names):
            digest.update(self.model.get_parameter(name).detach().float().cpu().numpy().tobytes())
        redraw(model, names, seed ^ int.from_bytes(digest.digest(), "little"))
        return self._with(model)

    def double(self) -> "Ours":
        return self._with(copy.deepcopy(self.model).double())

    def _with(self, model: Transformer) -> Self:
        other = type(self)(model, self.split, self.reconstruction, self.seed)
        other.orders = self.orders
        return other

    def reordered(self, order: np.ndarray) -> "Ours":
        """Masks are drawn from the numbers of the seed, the sample and the position, so they do not know the order."""
        other = copy.copy(self)
        other.orders = (*self.orders, torch.as_tensor(order, device=self.split.inputs.device))
        return other


def reorder(batch: Batch, order: Tensor, *, pairs: bool) -> Batch:
    """Its real positions in the order in which ``order`` (length,) names them."""
    inputs = batch.inputs.flatten(0, 1) if pairs else batch.inputs
    valid = batch.valid if batch.valid is None or not pairs else batch.valid.flatten(0, 1)
    source = reordered_places(order, valid, sequences=len(inputs))
    moved = inputs[torch.arange(len(inputs), device=inputs.device)[:, None], source]
    return dataclasses.replace(batch, inputs=moved.view_as(batch.inputs))


def attentions(model: Transformer) -> list[Attention]:
    """The attention of every layer, in order."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def windows(model: Transformer, leading: int) -> tuple[int | None, int | None]:
    """The window and the block of all its layers, if these limit what is seen; no block under a leading token, which
    shifts blocks against positions.
    """
    rules = {(rule.window, rule.block) for rule in (a.visibility(None) for a in attentions(model))}
    window, block = rules.pop() if len(rules) == 1 else (None, None)
    return window, None if leading else block


def _all_but(model: Transformer, names: Collection[str]) -> dict[int, Any]:
    """What a copy shares that has only the parameters ``names`` (and the modules around them) of its own."""
    around = {name[:end] for name in names for end in range(len(name)) if name[end] == "."} | {""}
    modules = [module for name, module in model.named_modules() if name not in around]
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return {id(part): part for part in [model.config, model.spec, *modules, *(t for n, t in tensors if n not in names)]}


class OurRotation:
    """That of a ``Rotary`` that counts leading tokens as positions."""

    def __init__(self, rotary: Rotary | None, leading: int) -> None:
        assert rotary is not None, "rotary positions"
        width = 2 * rotary.cos.shape[-1]
        self.tables, self.leading = (rotary.cos, rotary.sin), leading
        self.frequencies = BASE ** (-np.arange(0, width, 2) / width)

    def turn(self, x: Tensor) -> Tensor:
        return self._turn(x, 1)

    def back(self, x: Tensor) -> Tensor:
        return self._turn(x, -1)

    def _turn(self, x: Tensor, sense: int) -> Tensor:
        places = slice(self.leading, self.leading + x.shape[-2])
        cos, sin = (table[places].to(x.dtype) for table in self.tables)
        even, odd, sin = x[..., 0::2], x[..., 1::2], sense * sin
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
