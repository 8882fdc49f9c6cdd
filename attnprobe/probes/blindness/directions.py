"""Directions that labels are claimed to be blind to, and directions they may see.

At uniform attention and with a readout of the mean position, the label loss has no slope along a direction whose column
sums vanish once its rows are centred, and no curvature either where the columns' sums of squares are equal besides
(theory/README.md, C1 and C2; proximity misses the latter at the edges only). Elsewhere the claim is an empirical one:
what is tested is whether the part of the derivatives that depends on the labels can be told from shuffled labels.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from attnprobe.scores.directions import Direction, ScoreSpace
from attnprobe.scores.distance_profiles import contrast_profile
from attnprobe.scores.named import RADII, kernel_name
from attnprobe.streams import stream

QUANTITIES = ("slope", "curvature")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """Labels are said to be blind to these derivatives along the direction; a control is claimed in none."""

    direction: Direction
    blind: tuple[str, ...] = QUANTITIES
    balanced: bool = False  # a matrix (length, length) whose column sums are taken off; anew where sequences are padded

    def __post_init__(self) -> None:
        assert not self.balanced or (self.direction.matrix is not None and self.direction.matrix.dim() == 2)


def default_claims(space: ScoreSpace, seed: int) -> list[Claim]:
    """Near others against far others, of several radii (slope and curvature), and a random direction (slope), each with
    its column sums taken off; as controls a key-only and a random direction that keep theirs.
    """
    rows = slice(0, space.length)
    contrasts = {kernel_name("contrast", r): space.expand(contrast_profile(space.layout, r), rows) for r in RADII}
    left, right = torch.from_numpy(stream(seed, "blindness directions").standard_normal((2, space.length)))
    keys = Direction(name="key-only", factors=(torch.ones_like(right), right))
    visible = Direction(name="random visible", factors=(left, right.flip(0)))
    blind = without_column_sums(space, left[:, None] * right)
    return [
        *(
            Claim(direction=Direction(name=n, matrix=without_column_sums(space, m)), balanced=True)
            for n, m in contrasts.items()
        ),
        Claim(direction=Direction(name="random blind", matrix=blind), blind=("slope",), balanced=True),
        Claim(direction=keys, blind=()),
        Claim(direction=visible, blind=()),
    ]


def without_column_sums(space: ScoreSpace, matrix: Tensor) -> Tensor:
    """The nearest matrix (length, length) whose rows are centred over the visible keys and whose columns sum to zero.

    Columns are summed with the weights that uniform attention over the visible keys gives to the rows: a causal row
    that sees n keys counts 1/n.
    """
    visible = space.visible(slice(0, space.length)).double()
    centred = row_centred(matrix, visible)
    return centred - correction(potentials(centred, visible, torch.linalg.solve), visible)


def row_centred(matrix: Tensor, visible: Tensor) -> Tensor:
    return (matrix - (matrix * visible).sum(1, keepdim=True) / visible.sum(1)[:, None]) * visible


def potentials(centred: Tensor, visible: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """b (key,) of the correction that takes the column sums off; ``solve`` a symmetric system."""
    # Row-centred corrections w_i (b_j - mean of b over the row's keys) have the column sums M b; M 1 = 0.
    weight = 1 / visible.sum(1)
    system = torch.diag(weight.square() @ visible) - visible.T @ (weight.pow(3)[:, None] * visible)
    return solve(system + system.diagonal().mean() / len(system), weight @ centred)


def correction(b: Tensor, visible: Tensor) -> Tensor:
    count = visible.sum(1)
    return (1 / count)[:, None] * (b - ((visible @ b) / count)[:, None]) * visible
