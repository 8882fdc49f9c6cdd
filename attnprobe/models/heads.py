"""From features to answers: pooling and the label heads, and how wide a reconstruction must be."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import require
from attnprobe.tasks import Spec

Readout = Literal["mean", "max", "last", "token"]
ReconstructionTarget = Literal["values", "classes"]  # real values, or one of the token ids or grey levels


def pool(features: Tensor, readout: Readout, valid: Tensor | None) -> Tensor:
    """(batch, length, d_model) -> (batch, d_model); padded positions never contribute."""
    if readout == "token":
        return features[:, 0]
    if readout == "last":
        last = -1 if valid is None else valid.sum(1) - 1
        return features[torch.arange(len(features), device=features.device), last]
    if valid is None:
        return features.mean(1) if readout == "mean" else features.amax(1)
    if readout == "mean":
        return (features * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)
    return features.masked_fill(~valid[..., None], -torch.inf).amax(1)


class MLPHead(nn.Module):
    """Linear - ReLU - Linear, the label head of the published Text and Image runs."""

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_model)
        self.down = nn.Linear(d_model, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.down(F.relu(self.up(pooled)))


class PairHead(nn.Module):
    """Label of two sequences from [a, b, a - b, a * b] (the head of Retrieval): Linear - GELU - Linear."""

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.up = nn.Linear(4 * d_model, d_model)
        self.down = nn.Linear(d_model, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(2 * batch, d_model), the two sequences of a pair next to each other -> (batch, classes)."""
        a, b = pooled[0::2], pooled[1::2]
        return self.down(F.gelu(self.up(torch.cat([a, b, a - b, a * b], dim=-1))))


def label_head(spec: Spec, d_model: int, kind: Literal["linear", "mlp"]) -> nn.Module:
    if spec.pairs:
        return PairHead(d_model, spec.classes)
    return MLPHead(d_model, spec.classes) if kind == "mlp" else nn.Linear(d_model, spec.classes)


def reconstruction_head(
    spec: Spec, target: ReconstructionTarget, d_model: int, kind: Literal["linear", "identity"]
) -> nn.Module:
    """From a position's features to what was there; identity: token i has feature i as its logit, the rest is unused.

    ConfigError if the features cannot be logits of this data.
    """
    if kind == "linear":
        return nn.Linear(d_model, reconstruction_width(spec, target))
    require(spec.vocabulary is not None, "model.reconstruction_head", "identity needs a task whose inputs are tokens")
    enough = spec.vocabulary is not None and d_model >= spec.vocabulary
    message = f"identity needs a feature per token: {spec.vocabulary} tokens, but model.d_model is {d_model}"
    require(enough, "model.reconstruction_head", message)
    return nn.Identity()


def reconstruction_width(spec: Spec, target: ReconstructionTarget) -> int:
    if spec.vocabulary is not None:
        return spec.vocabulary
    if target == "values":
        return spec.channels
    assert spec.levels is not None, "checked by the objective"
    return spec.channels * spec.levels
