"""What a position's input becomes before the first block; a hidden position shows nothing but that it is hidden."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.tasks import MASK_ID, Spec


class ValueEmbedding(nn.Module):
    """Real values plus one mask channel -> d_model. A hidden position has all values zero and the mask channel one."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.channels + 1, d_model)
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)

    def standardise(self, inputs: Tensor) -> Tensor:
        """Stored values -> model units (zero mean, unit variance over the training set)."""
        return (inputs.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> Tensor:
        values = self.standardise(inputs)
        if hidden is None:
            return self.linear(F.pad(values, (0, 1)))
        mask = hidden[..., None]
        return self.linear(torch.cat([values.masked_fill(mask, 0.0), mask.to(values.dtype)], dim=-1))


class ClassToken(nn.Module):
    """A learned vector before the first position, from which labels can be read."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.vector.to(x.dtype).expand(len(x), 1, -1), x], dim=1)


class TokenEmbedding(nn.Module):
    """Token ids -> d_model. A hidden position holds the mask id."""

    def __init__(self, spec: Spec, d_model: int) -> None:
        super().__init__()
        assert spec.vocabulary is not None
        self.table = nn.Embedding(spec.vocabulary, d_model)

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> Tensor:
        tokens = inputs.long()
        return self.table(tokens if hidden is None else tokens.masked_fill(hidden, MASK_ID))
