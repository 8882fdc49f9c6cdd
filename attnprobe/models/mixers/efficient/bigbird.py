"""BigBird: neighbouring, global and random blocks of keys (Zaheer et al. 2020)."""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.mixers.efficient.projected import Projected
from attnprobe.models.mixers.efficient.sparse import dense, in_blocks
from attnprobe.scores.visibility import Visibility
from attnprobe.streams import stream

MOST_BLOCKS = 4096  # drawing their neighbours takes time that grows like the square


class BigBird(Projected):
    """Every block sees itself, its neighbours, the first block, and random others; the first block sees all.

    The random blocks are drawn once for every layer and block, the same in every model; a shorter sequence has those of
    them that lie within it.
    """

    table: Tensor

    def __init__(self, site: Site, settings: "BigBirdSettings") -> None:
        super().__init__(site, settings)
        self.block = settings.block
        blocks = -(-site.length // settings.block)
        message = f"{settings.block} makes {blocks:,} blocks of {site.length:,} positions, more than {MOST_BLOCKS:,}"
        require(blocks <= MOST_BLOCKS, "model.mixer.block", message, hint="choose larger blocks")
        table = draw_table(blocks, settings.random, site.layer)
        self.register_buffer("table", torch.as_tensor(table), persistent=False)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        table = self.table[: -(-q.shape[-2] // self.block)]
        mixed = in_blocks(q, k, v, size=self.block, table=table, valid=valid)
        seeing = dense(q[..., : self.block, :], k, v, Visibility(valid=valid))
        return torch.cat([seeing, mixed[..., self.block :, :]], -2)

    @classmethod
    def stack(cls, layers: object) -> None:
        """By its projections."""


def draw_table(blocks: int, random: int, layer: int) -> np.ndarray:
    """(block, 4 + random) int64: the blocks that each block sees, none twice in a row; -1: none."""
    rows, random = [], min(random, blocks)
    for block in range(blocks):
        row = list(dict.fromkeys(b for b in (block - 1, block, block + 1, 0) if 0 <= b < blocks))
        drawn = stream(layer, "random blocks", str(block)).permutation(blocks).tolist()
        row += list(itertools.islice((b for b in drawn if b not in row), random))
        rows.append(row + [-1] * (4 + random - len(row)))
    return np.array(rows, dtype=np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BigBirdSettings(MixerSettings):
    """Neighbouring, global and random blocks: time grows like length times block (Zaheer et al. 2020)."""

    layer: ClassVar[type[Mixer]] = BigBird

    block: int = 64  # positions
    random: int = 3  # random blocks that every block sees

    def __post_init__(self) -> None:
        require_positive(self, "block")
        require(self.random >= 0, "random", f"must not be negative, got {self.random}")
