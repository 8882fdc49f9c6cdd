"""An objective; the class is what is written into objectives.py, which has these names already."""

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attnprobe.config import require
from attnprobe.models import ReconstructionTarget, Transformer, TransformerConfig
from attnprobe.objectives import Losses
from attnprobe.tasks import Batch, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copying:
    """Reconstruct inputs that are all visible."""

    power: float = 2.0  # of the errors

    metric: ClassVar[Literal["accuracy", "loss"]] = "loss"

    @property
    def target(self) -> ReconstructionTarget:
        return "values"

    def check(self, model: TransformerConfig, spec: Spec) -> None:
        require(not spec.is_tokens, "objective", "cannot be copying: this task's inputs are tokens", "use masked")

    def losses(
        self, model: Transformer, batch: Batch, *, seed: int, epoch: int | Tensor, training: bool = False
    ) -> Losses:
        prediction = model.reconstruct(model(batch.inputs, valid=batch.valid))
        wanted = model.embedding.standardise(batch.inputs)  # pyright: ignore[reportCallIssue]
        loss = (prediction - wanted).abs().pow(self.power).mean((1, 2))
        return Losses(loss=loss, count=torch.ones_like(loss), correct=None)
