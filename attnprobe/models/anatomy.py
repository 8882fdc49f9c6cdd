"""Where a model's parameters are: in its embedding, its blocks' mixers, MLPs and norms, its heads."""

import dataclasses
from collections.abc import Mapping

from torch import nn

IN_BLOCKS: Mapping[str, str] = {"norm1": "norms", "norm2": "norms", "up": "MLP", "down": "MLP"}
ELSEWHERE: Mapping[str, str] = {"token": "class token", "norm": "last norm"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOfModel:
    """Parameters of one kind, of all blocks that have equally many of them."""

    part: str
    blocks: tuple[int, ...]  # their numbers; none: outside of the blocks
    each: int  # parameters in one block, or all of them

    @property
    def parameters(self) -> int:
        return self.each * max(1, len(self.blocks))


def parts(model: nn.Module) -> list[PartOfModel]:
    """In the order of the model; the parameters of all of them are those of the model, each counted once."""
    counts: dict[tuple[str, int | None], int] = {}
    for name, parameter in model.named_parameters():
        counts[place(name)] = counts.get(place(name), 0) + parameter.numel()
    alike: dict[tuple[str, int | None, int], list[int]] = {}
    for (part, block), count in counts.items():
        alike.setdefault((part, None if block is None else -1, count), []).extend([] if block is None else [block])
    return [PartOfModel(part=part, blocks=tuple(blocks), each=count) for (part, _, count), blocks in alike.items()]


def place(name: str) -> tuple[str, int | None]:
    """Part and number of the block that a parameter belongs to."""
    first, *rest = name.split(".")
    if first == "blocks":
        return IN_BLOCKS.get(rest[1], f"mixer {rest[1]}"), int(rest[0])
    return ELSEWHERE.get(first, first.replace("_", " ")), None
