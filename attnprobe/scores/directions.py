"""Named directions in the space of attention scores, and the projection of score gradients on them.

A direction is a matrix Delta over (query, key). Adding a constant to a row of the scores changes nothing, so every
direction is centred in each row over the keys that query can see, and scaled to unit Frobenius norm. It is zero at
keys hidden by causality or windows and, with a class token, in the token's row and column. A padded sequence has fewer
pairs: its own direction is centred over its real keys and of unit norm over its real pairs. None of it needs the
matrix: rows are made in blocks, and a direction that depends on the offset alone only meets the gradient folded by
offset.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.scores.layout import Layout
from attnprobe.scores.padding import fitted_norm_and_means
from attnprobe.scores.pattern_sums import fold

DENSE_LIMIT = 1024  # longest sequence for which a matrix over (query, key) is kept
BLOCK = 2**18  # scores per block when norms are computed; larger ones leave holes in the heap


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSpace:
    """Queries and keys of one head: the positions of a layout after ``leading`` class tokens."""

    layout: Layout
    leading: int = 0

    @property
    def length(self) -> int:
        return self.layout.length

    @property
    def size(self) -> int:
        """Rows and columns of the score matrix."""
        return self.leading + self.length

    def offset_axes(self) -> dict[str, np.ndarray]:
        """Names and values of the axes of a profile."""
        names = ("offset",) if len(self.layout.shape) == 1 else ("offset_y", "offset_x")
        sizes = zip(names, self.layout.shape, strict=True)
        return {name: np.arange(1 - size, size) for name, size in sizes}

    def row_blocks(self, rows: int) -> list[slice]:
        """Consecutive query rows, at most about ``rows`` each; whole image rows on a grid, which ``fold`` needs."""
        unit = math.prod(self.layout.shape[1:])
        step = max(rows // unit, 1) * unit
        return [slice(first, min(first + step, self.length)) for first in range(0, self.length, step)]

    def visible(self, rows: slice, device: torch.device | None = None) -> Tensor:
        """(rows, length) bool: may the query see the key, padding aside?"""
        seen = self.layout.rule.mask(rows, slice(0, self.length), device)
        whole = (rows.stop - rows.start, self.length)
        return torch.ones(whole, dtype=torch.bool, device=device) if seen is None else seen.expand(whole)

    def keys_seen(self, rows: slice) -> Tensor:
        """(rows,) int64: how many keys each query sees, leading tokens among them, padding aside."""
        first, stop = self.layout.rule.bounds(self.size)
        return (stop - first)[self.leading :][rows]

    def expand(self, profile: Tensor, rows: slice) -> Tensor:
        """Profile (..., *layout.offsets) -> its matrix at these queries (..., rows, length)."""
        key = torch.arange(self.length, device=profile.device)
        query = key[rows, None]
        if len(self.layout.shape) == 1:
            return profile[..., key - query + self.length - 1]
        height, width = self.layout.shape
        dy, dx = key // width - query // width, key % width - query % width
        return profile[..., dy + height - 1, dx + width - 1]

    def fold(self, block: Tensor, rows: slice) -> Tensor:
        """Sum (..., rows, length) over the pairs of each offset -> (..., *layout.offsets); adjoint of ``expand``."""
        if len(self.layout.shape) == 1:
            return F.pad(fold(block), (self.length - rows.stop, rows.start))
        height, width = self.layout.shape
        grid = block.unflatten(-1, (height, width)).unflatten(-3, (-1, width)).transpose(-3, -2)  # qy, ky, qx, kx
        columns = fold(grid).movedim(-1, -3)  # dx, qy, ky
        return F.pad(fold(columns), (height - rows.stop // width, rows.start // width)).mT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Direction:
    """A named direction before centring and scaling: exactly one of the three forms is given.

    Axes (layer, head) may lead a profile or a matrix; without them the direction is the same in every head.
    """

    name: str
    profile: Tensor | None = None  # ([layer, head,] *layout.offsets): depends on the offset only
    factors: tuple[Tensor, Tensor] | None = None  # (length,) over queries and (length,) over keys: their outer product
    matrix: Tensor | None = None  # ([layer, head,] length, length)
    role: Literal["named", "offset", "control"] = "named"  # a question, one of many single offsets, or no question

    def __post_init__(self) -> None:
        assert (self.profile is None) + (self.factors is None) + (self.matrix is None) == 2, "one form"

    def block(self, space: ScoreSpace, rows: slice) -> Tensor:
        """(layer or 1, head or 1, rows, length) as given, not centred, not scaled."""
        if self.profile is not None:
            block = space.expand(self.profile, rows)
        elif self.matrix is not None:
            block = self.matrix[..., rows, :]
        else:
            assert self.factors is not None
            block = self.factors[0][rows, None] * self.factors[1]
        return block if block.dim() == 4 else block[None, None]


def centred(space: ScoreSpace, block: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Centre each row over its visible keys: the centred block, zero where hidden, and the means (..., rows)."""
    visible = space.visible(rows, block.device)
    mean = (block * visible).sum(-1) / visible.sum(-1)
    return (block - mean[..., None]) * visible, mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """All directions over the real pairs of some sequences; zero where a sequence has nothing of a direction."""

    norm: Tensor  # (batch, layer, head, direction)
    means: Tensor | None  # (batch, layer or 1, head or 1, length, direction) row means; None without a class token


class Projector:
    """Projects score gradients on several directions at once, block by block of query rows.

    ``norm`` (layer, head, direction) is the Frobenius norm of each direction after centring, without padding.
    Raises NotApplicableError if a direction vanishes: then nothing can be measured along it; ConfigError if one was
    made for another geometry.
    """

    def __init__(self, space: ScoreSpace, directions: Sequence[Direction], *, layers: int, heads: int) -> None:
        self.space = space
        # The forms are projected differently; results come in the order profile, factors, matrix.
        self.directions = [
            *(d for d in directions if d.profile is not None),
            *(d for d in directions if d.factors is not None),
            *(d for d in directions if d.matrix is not None),
        ]
        self.names = [d.name for d in self.directions]
        if len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"directions must have different names, got {', '.join(self.names)}",
                hint="give every direction a name of its own",
            )
        shape = (layers, heads)
        for direction in self.directions:
            check_geometry(space, direction, shape)
        measured = [norm_and_means(space, d) for d in self.directions]
        for direction, (norm, _) in zip(self.directions, measured, strict=True):
            if not bool((norm > 0).all()):
                raise NotApplicableError(
                    f"direction {direction.name!r} is zero once its rows are centred",
                    hint="leave it out, or choose one that differs within rows",
                )
        self.norm = torch.stack([norm.expand(shape) for norm, _ in measured], -1)
        self._means = torch.stack([m.expand(*shape, -1) for _, m in measured], -1) if space.leading else None
        profiles = [d.profile for d in self.directions if d.profile is not None]
        pairs = [d.factors for d in self.directions if d.factors is not None]
        flat = [_per_head(p, shape, len(space.layout.offsets)).flatten(2) for p in profiles]
        self._profiles = torch.stack(flat, -1) if flat else None
        self._left = torch.stack([left for left, _ in pairs], -1) if pairs else None
        self._right = torch.stack([right for _, right in pairs], -1) if pairs else None
        matrices = [d.matrix for d in self.directions if d.matrix is not None]
        self._matrices = [_per_head(m, shape, 2) for m in matrices]
        self._shape = shape
        self._fitted: dict[bytes, tuple[Tensor, Tensor | None]] = {}  # by the mask: sequences of one length share it

    def fitted(self, valid: Tensor | None) -> Fitted | None:
        """To sequences of which only the ``valid`` positions (batch, length) are real; None if all are."""
        if valid is None or bool(valid.all()):
            return None
        valid = valid.cpu()
        keys = [mask.numpy().tobytes() for mask in valid]
        unknown = {key: mask for key, mask in zip(keys, valid, strict=True) if key not in self._fitted}
        if unknown:
            norms, means = zip(
                *(fitted_norm_and_means(self.space, d, torch.stack([*unknown.values()])) for d in self.directions),
                strict=True,
            )
            norm = torch.stack([norm.expand(-1, *self._shape) for norm in norms], -1)
            mean = torch.stack(torch.broadcast_tensors(*means), -1) if self.space.leading else [None] * len(norm)
            self._fitted |= dict(zip(unknown, zip(norm, mean, strict=True), strict=True))
        norms, means = zip(*(self._fitted[key] for key in keys), strict=True)
        return Fitted(norm=torch.stack(norms), means=torch.stack(means) if self.space.leading else None)

    def project(self, block: Tensor, folded: Tensor, layer: int, rows: slice, fitted: Fitted | None = None) -> Tensor:
        """Share of these rows in the projections: sum the answers over all blocks of rows.

        block: (..., head, rows, length) score gradients; folded: the same after ``space.fold``. fitted: to the padding
        of the sequences, which are then the axis before the heads. -> (..., head, n)
        """
        like = {"dtype": block.dtype, "device": block.device}
        parts = []
        if self._profiles is not None:
            flat = folded.flatten(-len(self.space.layout.offsets))
            parts.append((flat[..., None, :] @ self._profiles[layer].to(**like)).squeeze(-2))
        if self._left is not None and self._right is not None:
            parts.append(((block @ self._right.to(**like)) * self._left[rows].to(**like)).sum(-2))
        parts += [(block * m[layer][:, rows].to(**like)).sum((-2, -1))[..., None] for m in self._matrices]
        projection = torch.cat(parts, -1)
        means = self._means if fitted is None else fitted.means
        if means is not None:  # without a class token rows of a score gradient sum to zero over the sequence
            of_layer = means[layer] if fitted is None else means[:, layer if means.shape[1] > 1 else 0]
            row_sums = block.sum(-1)[..., None, :]
            projection = projection - (row_sums @ of_layer[..., rows, :].to(**like)).squeeze(-2)
        norm = (self.norm[layer] if fitted is None else fitted.norm[:, layer]).to(**like)
        return torch.where(norm > 0, projection / norm.where(norm > 0, 1.0), 0.0)

    def matrix(self, name: str) -> Tensor:
        """The direction itself, dense, zero at the class token: (layer, head, size, size); for small sizes."""
        index = self.names.index(name)
        rows = slice(0, self.space.length)
        block, _ = centred(self.space, self.directions[index].block(self.space, rows), rows)
        return F.pad(block / self.norm[..., index, None, None], (self.space.leading, 0, self.space.leading, 0))


def _per_head(values: Tensor, shape: tuple[int, int], dims: int) -> Tensor:
    """([layer, head,] ...) with ``dims`` last axes -> (layer, head, ...)."""
    values = values if values.dim() == dims + 2 else values[None, None]
    return values.expand(*shape, *values.shape[2:])


def norm_and_means(space: ScoreSpace, direction: Direction) -> tuple[Tensor, Tensor]:
    """Frobenius norm after centring (layer, head) and row means (layer, head, length), float64.

    Axes are of size 1 where shared. The norm is exactly 0 where centring leaves nothing but rounding.
    """
    shared = torch.zeros(1, 1, dtype=torch.float64)
    energy, largest, means = shared, shared, []
    heads = direction.block(space, slice(0, math.prod(space.layout.shape[1:])))[..., 0, 0].numel()
    for rows in space.row_blocks(max(BLOCK // (space.length * heads), 1)):
        given = direction.block(space, rows).double()
        block, mean = centred(space, given, rows)
        energy = energy + block.square().sum((-2, -1))
        largest = torch.maximum(largest, given.abs().amax((-2, -1)))
        means.append(mean)
    norm = energy.sqrt()
    return norm * (norm > 1e-12 * largest), torch.cat(means, -1)


def check_geometry(space: ScoreSpace, direction: Direction, heads: tuple[int, int]) -> None:
    """Raise ConfigError if the direction has not the shape of these scores, or of so many (layers, heads)."""
    given, wanted = (), ()
    if direction.factors is not None:
        given, wanted = (tuple(direction.factors[0].shape), tuple(direction.factors[1].shape)), ((space.length,),) * 2
    elif direction.profile is not None:
        given, wanted = tuple(direction.profile.shape), space.layout.offsets
    elif direction.matrix is not None:
        given, wanted = tuple(direction.matrix.shape), (space.length,) * 2
    if given not in (wanted, (*heads, *wanted)):
        raise ConfigError(
            f"direction {direction.name!r} has shape {given}, but these scores need {wanted}",
            hint="make it for the task and the model that are measured",
        )
