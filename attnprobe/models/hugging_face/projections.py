"""Fused projections of queries, keys and values taken apart, so that W_Q and W_K have names of their own."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

# Names of the projections of queries and of keys where they are modules of their own.
QUERIES = ("q", "query", "q_proj", "q_lin", "wq", "Wq")
KEYS = ("k", "key", "k_proj", "k_lin", "wk", "Wk")


class Fused(NamedTuple):
    name: str  # of the module that makes queries, keys and values at once
    by_head: bool  # whether its outputs are q, k, v of the first head, then of the next; else q, k, v of all heads


FUSED = {  # class of the attention module that holds it
    "GPTNeoXAttention": Fused("query_key_value", by_head=True),
    "GPT2Attention": Fused("c_attn", by_head=False),
    "ModernBertAttention": Fused("Wqkv", by_head=False),
}


class Elsewhere(nn.Module):
    """In the place of a module whose weights are kept under other names.

    The code that draws the modules around it asks for its weight, so it shows one of no use to anybody.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1, 1), persistent=False)
        self.bias = None


class SplitProjection(Elsewhere):
    """Three linear layers whose outputs are laid out as those of the fused one, so that nothing else need know."""

    def __init__(self, fused: nn.Module, heads: int, by_head: bool) -> None:
        super().__init__()
        self.heads, self.by_head = heads, by_head
        # Conv1D of GPT-2 holds (inputs, outputs)
        weight = fused.weight if isinstance(fused, nn.Linear) else fused.weight.T  # pyright: ignore[reportCallIssue]
        bias = fused.bias
        assert isinstance(weight, Tensor)
        for name, part in zip("qkv", self._parts(weight), strict=True):
            layer = nn.Linear(weight.shape[1], len(part), bias=isinstance(bias, Tensor), device=weight.device)
            self.add_module(name, layer)
            layer.weight.data.copy_(part)
        if isinstance(bias, Tensor):
            for name, part in zip("qkv", self._parts(bias), strict=True):
                self.get_submodule(name).bias.data.copy_(part)  # pyright: ignore[reportCallIssue]

    def _parts(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The rows of queries, of keys and of values."""
        if not self.by_head:
            return tensor.detach().chunk(3)
        rows = tensor.detach().unflatten(0, (self.heads, 3, -1))
        return tuple(rows[:, part].flatten(0, 1) for part in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_submodule(name)(x) for name in "qkv"]
        if not self.by_head:
            return torch.cat(parts, dim=-1)
        return torch.stack([part.unflatten(-1, (self.heads, -1)) for part in parts], dim=-2).flatten(-3)


def take_apart(backbone: nn.Module, heads: int) -> None:
    """Put a ``SplitProjection`` in the place of every fused projection that is known."""
    for module in list(backbone.modules()):
        fused = FUSED.get(type(module).__name__)
        if fused is not None and not getattr(module, "is_cross_attention", False):
            setattr(module, fused.name, SplitProjection(getattr(module, fused.name), heads, fused.by_head))
