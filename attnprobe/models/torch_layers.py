"""Torch's own layers, which cannot declare anything themselves: how they start and what they are in an ensemble."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.errors import NotApplicableError
from attnprobe.models.parts import NO_TWIN, Initial, Part, constant, normal, stacked, uniform


class StackedLinear(nn.Module):
    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = stacked([m.weight for m in layers])
        self.bias = None if layers[0].bias is None else stacked([m.bias for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        members = x.reshape(len(self.weight), -1, x.shape[-1])
        if self.bias is None:
            return torch.bmm(members, self.weight.mT).view(*x.shape[:-1], -1)
        return torch.baddbmm(self.bias[:, None], members, self.weight.mT).view(*x.shape[:-1], -1)


class StackedLayerNorm(nn.Module):
    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        if layers[0].bias is None or len(layers[0].normalized_shape) > 1:
            raise NotApplicableError("a layer norm without shift or over several axes cannot be stacked", NO_TWIN)
        self.weight, self.bias = stacked([m.weight for m in layers]), stacked([m.bias for m in layers])
        self.eps = layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x, x.shape[-1:], eps=self.eps).view(len(self.weight), -1, x.shape[-1])
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None]).view_as(x)


class StackedEmbedding(nn.Module):
    def __init__(self, layers: Sequence[nn.Embedding]) -> None:
        super().__init__()
        if layers[0].padding_idx is not None or layers[0].max_norm is not None:
            raise NotApplicableError("an embedding with a padding token or a largest norm cannot be stacked", NO_TWIN)
        self.weight = stacked([m.weight for m in layers])

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (members * batch, length): each member has rows of its own in one long table."""
        members, vocabulary, _ = self.weight.shape
        first = torch.arange(members, device=tokens.device).repeat_interleave(len(tokens) // members) * vocabulary
        return F.embedding(tokens + first[:, None], self.weight.flatten(0, 1))


class Layer(NamedTuple):
    initial: Callable[[Any], dict[str, Initial]]
    stack: Callable[[Sequence[Any]], nn.Module]


def _linear(module: nn.Linear) -> dict[str, Initial]:
    return {name: uniform(1 / math.sqrt(module.in_features)) for name, _ in module.named_parameters(recurse=False)}


def _norm(module: nn.LayerNorm) -> dict[str, Initial]:
    return {name: constant(name == "weight") for name, _ in module.named_parameters(recurse=False)}


LAYERS: dict[type[nn.Module], Layer] = {
    nn.Linear: Layer(_linear, StackedLinear),
    nn.LayerNorm: Layer(_norm, StackedLayerNorm),
    nn.Embedding: Layer(lambda module: {"weight": normal()}, StackedEmbedding),
}


def initial_of(module: nn.Module) -> Mapping[str, Initial]:
    """What a module of any kind declares of how its parameters start."""
    if isinstance(module, Part):
        return module.initial()
    return LAYERS[type(module)].initial(module) if type(module) in LAYERS else {}


def twin_of(layers: Sequence[nn.Module]) -> nn.Module | None:
    """What modules of one kind are in an ensemble; None: their parts are to be stacked."""
    first = layers[0]
    if isinstance(first, Part):
        return type(first).stack(layers)
    return LAYERS[type(first)].stack(layers) if type(first) in LAYERS and has_state(first) else None


def has_state(module: nn.Module) -> bool:
    """Whether it has parameters or persistent buffers of its own, not of its parts."""
    return any("." not in name for name in module.state_dict())
