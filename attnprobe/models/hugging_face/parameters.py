"""What is to be known of a foreign model's parameters: their sets by name, how they start, how they are updated."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.models.hugging_face.projections import KEYS, QUERIES, SplitProjection
from attnprobe.models.parts import Fill, Update

ATTENTION = {"attention", "attn", "self_attn", "self_attention", "SelfAttention", "attentions"}
MLP = {"mlp", "ffn", "ffn_output", "feed_forward", "intermediate", "output", "fc1", "fc2", "lin1", "lin2"}
POSITIONS = ("position", "wpe")  # in the names of learned tables


def position_tables(backbone: nn.Module) -> dict[str, nn.Embedding]:
    """Learned tables of positions, by name."""
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Embedding) and any(word in name.rpartition(".")[2] for word in POSITIONS)
    }


def longest(backbone: nn.Module) -> int | None:
    """How many positions the learned tables can tell apart; None if there are none."""
    rows = []
    for table in position_tables(backbone).values():
        first = 0 if table.padding_idx is None else table.padding_idx + 1  # of RoBERTa, positions follow the padding
        rows.append(table.num_embeddings - max(first, getattr(table, "offset", 0)))
    return min(rows, default=None)


def sets_by_name(backbone: nn.Module) -> dict[str, set[str]]:
    """qk, attention, mlp, norms and positions -> names of parameters, as far as names tell; no set is empty."""
    tables = set(position_tables(backbone))
    found: dict[str, set[str]] = {name: set() for name in ("qk", "attention", "mlp", "norms", "positions")}
    for name, _ in backbone.named_parameters():
        owner, _, _ = name.rpartition(".")
        path = owner.split(".")
        if owner in tables:
            found["positions"].add(name)
        elif "Norm" in type(backbone.get_submodule(owner)).__name__:
            found["norms"].add(name)
        elif ATTENTION & set(path):
            found["attention"].add(name)
            if path[-1] in (*QUERIES, *KEYS):
                found["qk"].add(name)
        elif MLP & set(path):
            found["mlp"].add(name)
    return {name: members for name, members in found.items() if members}


def updates(backbone: nn.Module) -> dict[str, Update]:
    """Tables of embeddings are decayed only if biases are, as ours."""
    tables = [name for name, module in backbone.named_modules() if isinstance(module, nn.Embedding)]
    return {f"{name}.weight": Update(decay="bias") for name in tables}


def drawing(backbone: Any, path: str, leaf: nn.Module, part: str) -> Fill:
    """How a parameter starts by the code of transformers itself: its module draws, then those around it have their say.

    path: where in the backbone ``leaf`` stands, or would stand if it had not been taken apart or out; part: the
    parameter's name in it. Of all parameters only this one is drawn.
    """

    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        parameter = leaf.get_parameter(part)
        with _standing_in(backbone, path, leaf), _alone(backbone, parameter, tensor):
            around = [backbone.get_submodule(".".join(path.split(".")[:n])) for n in range(path.count(".") + 2)]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator.initial_seed())
                for module in reversed(around):
                    backbone._init_weights(module)

    return fill


def place_of(backbone: nn.Module, name: str) -> str:
    """Where the module of a parameter stands to the eyes of transformers: a part of a fused projection in its place."""
    owner, _, _ = name.rpartition(".")
    outer, _, _ = owner.rpartition(".")
    return outer if isinstance(backbone.get_submodule(outer), SplitProjection) else owner


@contextlib.contextmanager
def _standing_in(backbone: nn.Module, path: str, leaf: nn.Module) -> Iterator[None]:
    before = backbone.get_submodule(path)
    backbone.set_submodule(path, leaf)
    try:
        yield
    finally:
        backbone.set_submodule(path, before)


@contextlib.contextmanager
def _alone(backbone: nn.Module, parameter: nn.Parameter, tensor: Tensor) -> Iterator[None]:
    """While open, ``parameter`` is ``tensor`` and the only one that transformers takes for not yet drawn."""
    others = [*backbone.parameters(), *backbone.buffers()]
    before = parameter.data
    for other in others:
        other._is_hf_initialized = True  # pyright: ignore[reportAttributeAccessIssue]
    parameter._is_hf_initialized = False  # pyright: ignore[reportAttributeAccessIssue]
    parameter.data = tensor
    try:
        yield
    finally:
        parameter.data = before
