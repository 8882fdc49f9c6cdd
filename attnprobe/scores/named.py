"""The directions that are measured unless others are given."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from attnprobe.scores.directions import Direction, ScoreSpace
from attnprobe.scores.distance_profiles import contrast_profile, proximity_profile
from attnprobe.scores.layout import Layout
from attnprobe.scores.visible_sums import occurring
from attnprobe.streams import stream

Along = Literal["contrast", "proximity"]
PROFILES: dict[Along, Callable[[Layout, float], Tensor]] = {
    "contrast": contrast_profile,
    "proximity": proximity_profile,
}
RADII = (1.0, 2.0, 4.0)
MAIN_RADIUS = 2.0  # of the direction that tables and verdicts speak of


def kernel_name(along: Along, radius: float) -> str:
    return f"{along} r={radius:g}"


MAIN_DIRECTIONS = tuple(kernel_name(along, MAIN_RADIUS) for along in PROFILES)  # the first that was measured


def named_directions(
    space: ScoreSpace,
    *,
    along: Along = "contrast",
    reach: int | None = None,
    radii: Sequence[float] = RADII,
    controls: int = 2,
    seed: int = 0,
) -> list[Direction]:
    """The standard set.

    | name           | Delta at (query i, key j)                                                            |
    |----------------|--------------------------------------------------------------------------------------|
    | offset 3       | 1 where j - i = 3; "offset (-1, 2)" = (rows, columns) on a grid                      |
    | contrast r=2   | exp(-distance / 2) between two positions, distance as in ``Layout.distance``; at a   |
    |                | position and itself as ``contrast`` says: near others against far others             |
    | proximity r=2  | with ``along="proximity"`` instead: the same, but 1 at a position and itself         |
    | key position   | j: depends on the key only; "key row" and "key column" on a grid                     |
    | random 1       | control: outer product of two Gaussian vectors                                       |

    ``reach``: single offsets up to this many positions in every axis (8 on a line, 3 on a grid unless given).
    ``controls``: how many random directions. Every control has a stream of its own, so none changes another.
    """
    layout = space.layout
    offsets = torch.stack(layout.axes(), -1)
    near = offsets.abs().amax(-1) <= (reach if reach is not None else 8 if len(layout.shape) == 1 else 3)
    directions = [_single_offset(index, offsets) for index in (near & occurring(layout)).nonzero()]
    for radius in radii:
        directions.append(Direction(name=kernel_name(along, radius), profile=PROFILES[along](layout, radius)))
    for name, key in _key_positions(space).items():
        directions.append(Direction(name=f"key {name}", factors=(torch.ones_like(key), key)))
    for name in (f"random {i + 1}" for i in range(controls)):
        pair = torch.from_numpy(stream(seed, "direction", name).standard_normal((2, space.length)))
        directions.append(Direction(name=name, factors=(pair[0], pair[1]), role="control"))
    return directions


def _single_offset(index: Tensor, offsets: Tensor) -> Direction:
    profile = torch.zeros(offsets.shape[:-1], dtype=torch.float64)
    profile[tuple(index)] = 1.0
    offset = offsets[tuple(index)].tolist()
    name = f"offset {offset[0] if len(offset) == 1 else tuple(offset)}"
    return Direction(name=name, profile=profile, role="offset")


def _key_positions(space: ScoreSpace) -> dict[str, Tensor]:
    """Coordinates of the keys (length,), each centred and of unit variance, so that none is lost to rounding."""
    position = torch.arange(space.length, dtype=torch.float64)
    if len(space.layout.shape) == 1:
        coordinates = {"position": position}
    else:
        coordinates = {"row": position // space.layout.shape[1], "column": position % space.layout.shape[1]}
    varying = {name: x for name, x in coordinates.items() if x.min() < x.max()}  # a grid may be one pixel wide
    return {name: (x - x.mean()) / x.std(correction=0) for name, x in varying.items()}
