"""What a model is trained for: (model, batch) -> sums of losses and metrics, exact over any batching."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError
from attnprobe.masking import bernoulli_mask, span_mask
from attnprobe.models import ReconstructionTarget, Transformer, TransformerConfig
from attnprobe.models.dropout import Dropout
from attnprobe.tasks import Batch, Spec

EVALUATION = -1  # the "epoch" of the fixed masks used on validation and test data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """Per-sequence sums; the mean loss of a batch is ``loss.sum() / count.sum()``."""

    loss: Tensor  # (batch,) sum of the loss over what counts in each sequence, with gradient
    count: Tensor  # (batch,) how much counts: 1 label, or the number of predicted positions
    correct: Tensor | None  # (batch,) how many predictions were right; None for real-valued targets

    def mean(self) -> Tensor:
        return self.loss.sum() / self.count.sum().clamp(min=1)

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Detached totals of loss, count and correct; correct is NaN where there is nothing to get right."""
        loss = self.loss.detach().sum()
        correct = torch.full_like(loss, torch.nan) if self.correct is None else self.correct.sum()
        return loss, self.count.sum(), correct


class Objective(Protocol):
    """A frozen dataclass of settings. ``metric`` says which validation number selects the best epoch."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    metric: ClassVar[Literal["accuracy", "loss"]]  # highest accuracy, or lowest loss

    @property
    def target(self) -> ReconstructionTarget | None:
        """What the reconstruction head must produce; None if this objective does not use it."""
        ...

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        """Raise ConfigError if this objective makes no sense for the model or the data."""
        ...

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        """``seed`` and ``epoch`` are the counters of whatever is random: the masks, and dropout while ``training``."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Cross-entropy of the pooled readout against the label."""

    metric: ClassVar[Literal["accuracy", "loss"]] = "accuracy"

    @property
    def target(self) -> None:
        return None

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        if spec.regression:
            raise ConfigError(
                "objective cannot be 'classification': this task's labels are numbers", hint="use regression"
            )

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        logits = label_outputs(model, batch, dropout_of(model, batch, seed, epoch, training))
        loss = F.cross_entropy(logits, batch.labels, reduction="none")
        return Losses(loss=loss, count=torch.ones_like(loss), correct=(logits.argmax(-1) == batch.labels).float())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression:
    """Squared error of the pooled readout against a real label."""

    metric: ClassVar[Literal["accuracy", "loss"]] = "loss"

    @property
    def target(self) -> None:
        return None

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        if not spec.regression:
            raise ConfigError(
                "objective cannot be 'regression': this task's labels are classes", hint="use classification"
            )

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        outputs = label_outputs(model, batch, dropout_of(model, batch, seed, epoch, training))
        loss = (outputs[:, 0] - batch.labels).square()
        return Losses(loss=loss, count=torch.ones_like(loss), correct=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedReconstruction:
    """Predict inputs that were hidden at random; only hidden ones enter the loss (masked SPT, Amos et al. 2023)."""

    ratio: float = 0.5  # each position is hidden with this probability
    loss: Literal["l1", "l2", "cross_entropy"] = "l1"  # cross_entropy: over token ids or grey levels
    # 1: each position is hidden on its own; more: spans of so many neighbours that do not overlap, ratio of all in sum
    span: int = 1

    metric: ClassVar[Literal["accuracy", "loss"]] = "loss"

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, "ratio", f"must lie between 0 and 1, got {self.ratio}")
        require_positive(self, "span")

    @property
    def target(self) -> ReconstructionTarget:
        return "classes" if self.loss == "cross_entropy" else "values"

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        check_target(self.loss, spec)
        hint = "use objective.name=denoising, the same for causal models, or causal, which predicts the next input"
        require(not model.causal, "model.causal", "must be false for masked reconstruction", hint)
        self.check_span(spec)

    def check_span(self, spec: Spec) -> None:
        fits = self.span == 1 or spec.length * self.ratio >= self.span
        message = f"is longer than the {self.ratio:.0%} of {spec.length} positions that are to be hidden: {self.span}"
        require(fits, "objective.span", message, hint="take a shorter span or a larger objective.ratio")

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        dropout = dropout_of(model, batch, seed, epoch, training)
        batch = sequences(model, batch)
        hidden = self.hidden(batch, seed, epoch)
        at = None if model.config.causal else hidden_positions(hidden)
        features = model(batch.inputs, hidden=hidden, valid=batch.valid, at=at, dropout=dropout)
        prediction = model.reconstruct(features)
        if at is None:
            return reconstruction_losses(model, prediction, batch.inputs, hidden, self.loss)
        rows = torch.arange(len(at), device=at.device)[:, None]
        return reconstruction_losses(model, prediction, batch.inputs[rows, at], hidden[rows, at], self.loss)

    def hidden(self, batch: Batch, seed: int, epoch: int | Tensor) -> Tensor:
        """(batch, length) bool of plain sequences."""
        length, valid = batch.inputs.shape[1], batch.valid
        if self.span == 1:
            return bernoulli_mask(self.ratio, seed=seed, sample=batch.sample, epoch=epoch, length=length, valid=valid)
        return span_mask(self.ratio, self.span, seed=seed, sample=batch.sample, epoch=epoch, length=length, valid=valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalDenoising(MaskedReconstruction):
    """Predict hidden inputs from what is visible before them: masked reconstruction by a causal model.

    The output at a hidden position t is compared with the input at t. It may depend on the visible inputs before t and
    on which of the positions up to t are hidden, on nothing after t. Amos et al. 2023 (C.3) name "a causal denoising
    objective" for the causal model of Speech Commands and do not define it; their code hides inputs and makes attention
    causal by settings of their own, and refuses to hide inputs while predicting the next one.
    """

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        check_target(self.loss, spec)
        require(model.causal, "model.causal", "must be true for causal denoising", "use objective.name=masked")
        self.check_span(spec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalPrediction:
    """Predict the next input from the past (Amos et al. 2023, causal SPT); needs a causal model."""

    loss: Literal["l1", "l2", "cross_entropy"] = "l1"  # cross_entropy: over token ids or grey levels

    metric: ClassVar[Literal["accuracy", "loss"]] = "loss"

    @property
    def target(self) -> ReconstructionTarget:
        return "classes" if self.loss == "cross_entropy" else "values"

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        check_target(self.loss, spec)
        require(model.causal, "model.causal", "must be true for causal prediction: the model could see its answer")

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        dropout = dropout_of(model, batch, seed, epoch, training)
        batch = sequences(model, batch)
        prediction = model.reconstruct(model(batch.inputs, valid=batch.valid, dropout=dropout))[:, :-1]
        following = batch.inputs[:, 1:]
        scored = torch.ones(following.shape[:2], dtype=torch.bool, device=following.device)
        scored = scored if batch.valid is None else batch.valid[:, 1:]
        return reconstruction_losses(model, prediction, following, scored, self.loss)


OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "regression": Regression,
    "masked": MaskedReconstruction,
    "denoising": CausalDenoising,
    "causal": CausalPrediction,
}


def has_accuracy(objective: Objective) -> bool:
    """Whether predictions can be right or wrong, so that an accuracy is measured."""
    return isinstance(objective, Classification) or objective.target == "classes"


def hidden_positions(hidden: Tensor) -> Tensor | None:
    """(batch, length) bool -> (batch, n) int64: the hidden positions of every sequence first, n = the most in any.

    Only what was hidden is scored, so the last block need not compute the rest. None where n would have to be waited
    for (a GPU) or would change a compiled shape.
    """
    if hidden.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    most = int(hidden.sum(1).max())
    return hidden.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : max(1, most)]


def reconstruction(
    trained: Sequence[Objective], *, classes: bool, causal: bool
) -> MaskedReconstruction | CausalPrediction:
    """THE reconstruction of a model: the one it is trained for, else what fits it. trained: its objectives, in order;
    classes: whether inputs are ids.
    """
    for objective in trained:
        if isinstance(objective, MaskedReconstruction | CausalPrediction):
            return objective
    loss = "cross_entropy" if classes else "l1"
    return CausalPrediction(loss=loss) if causal else MaskedReconstruction(loss=loss)


def sequences(model: Transformer, batch: Batch) -> Batch:
    """What the encoder sees: the two sequences of a pair are encoded side by side."""
    return batch.unpaired() if model.spec.pairs else batch


def dropout_of(model: Transformer, batch: Batch, seed: int, epoch: int | Tensor, training: bool) -> Dropout | None:
    """The counters of dropout for this batch; None outside of training and if the model drops nothing."""
    config = model.config
    if not training or not (config.dropout or config.attention_dropout or config.embedding_dropout):
        return None
    return Dropout(seed=seed, epoch=epoch, sample=sequences(model, batch).sample)


def label_outputs(model: Transformer, batch: Batch, dropout: Dropout | None = None) -> Tensor:
    """The label head's outputs (batch, classes), float32 at least."""
    seen = sequences(model, batch)
    outputs = model.classify(model(seen.inputs, valid=seen.valid, dropout=dropout), seen.valid)
    return outputs.float() if outputs.dtype == torch.bfloat16 else outputs


def check_target(loss: str, spec: Spec) -> None:
    if loss == "cross_entropy" and not spec.is_tokens and spec.levels is None:
        raise ConfigError(
            "objective.loss cannot be 'cross_entropy': this task's values are continuous",
            hint="use l1 or l2: -s pretrain.objective.loss=l1",
        )
    if loss != "cross_entropy" and spec.is_tokens:
        hint = "use cross_entropy: -s pretrain.objective.loss=cross_entropy"
        raise ConfigError(f"objective.loss cannot be {loss!r}: this task's inputs are tokens", hint)


def reconstruction_losses(model: Transformer, prediction: Tensor, inputs: Tensor, scored: Tensor, loss: str) -> Losses:
    """Sums over the ``scored`` positions (batch, length) of each sequence; channels of a position are averaged."""
    if prediction.dtype == torch.bfloat16:
        prediction = prediction.float()
    if loss == "cross_entropy":
        target = inputs.long() if inputs.dim() == 3 else inputs.long()[..., None]  # (batch, length, channels)
        error = F.cross_entropy(prediction.flatten(0, -2), target.flatten(), reduction="none").view_as(target)
        right = (prediction.argmax(-1) == target).float().mean(-1)
        correct = (right * scored).sum(1)
    else:
        difference = prediction - model.embedding.standardise(inputs)  # pyright: ignore[reportCallIssue]
        error = difference.abs() if loss == "l1" else difference.square()
        correct = None
    return Losses(loss=(error.mean(-1) * scored).sum(1), count=scored.sum(1).float(), correct=correct)
