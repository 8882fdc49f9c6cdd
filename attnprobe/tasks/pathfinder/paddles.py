"""What the contours of Pathfinder consist of: every paddle (dash) that can occur, drawn once, and how they may join.

A contour is a chain of straight paddles. It is steered by pivots, points in the gaps: a paddle's pivot lies ``margin``
pixels before its first pixel, and the far end of the next paddle lies on a circle of radius length + margin around the
next pivot. All displacements are whole pixels, so a few hundred drawings serve all images of one kind.

Positions are numbers: y * width + x on a canvas with a rim wide enough for everything that sticks out of the image.
"""

import dataclasses
import functools
from typing import Literal

import numpy as np

from attnprobe.tasks.pathfinder import drawing

DEGREES = 360  # directions in which a first paddle can point
SATURATED = 255  # grey level of a mask's core

Seeding = Literal["published", "clean"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paddle:
    """Everything that shapes a paddle and its joints; lengths in pixels of an image ``side`` pixels wide."""

    side: int
    length: int
    thickness: float
    margin: int  # half the gap between paddles, and the radius of the zone around one that others must not enter
    antialias_scale: int
    continuity: float  # factor on the angle between neighbours: above pi/2 the next paddle is impossible
    seeding: Seeding  # which directions a first paddle may have: see ``covers_corners``


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paddles:
    """Tables over poses: 360 first paddles by direction (drawn from their tail), then the paddles that continue.

    A paddle that continues a contour is one of the ``candidates``, and is drawn from its head backwards.
    """

    width: int  # of the canvas, rim included
    rim: int
    inside: np.ndarray  # (width * width,) bool: pixels of the image
    line_at: np.ndarray  # (poses, pixels) offsets of a paddle's pixels from where it is drawn; the last one repeats
    line_value: np.ndarray  # (poses, pixels) grey levels 0 .. 255, int16
    mask_at: np.ndarray  # the same for its zone
    mask_value: np.ndarray
    starts: np.ndarray  # (360,) bool: directions in which a first paddle may be placed at all
    core: np.ndarray  # (360, pixels) offsets that must be free before a first paddle is placed
    core_box: np.ndarray  # (360, 4) smallest and largest of them: y, y, x, x
    head: np.ndarray  # (360,) from tail to head of a first paddle
    pivot: np.ndarray  # (360,) from tail to pivot
    step: np.ndarray  # (poses,) from a paddle's pivot to the next pivot
    near: np.ndarray  # (poses, choices) candidates that a pose can be followed by; the last one repeats, with weight 0
    weight: np.ndarray  # (poses, choices) cos^2 of the angle, 0 .. 1
    candidate: np.ndarray  # (candidates,) from a pivot to a head
    disk: np.ndarray  # (pixels,) offsets within the margin

    def place(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Positions of image pixels."""
        return (y + self.rim) * self.width + x + self.rim


@functools.lru_cache(maxsize=8)
def tabulate(paddle: Paddle) -> Paddles:
    length, margin = paddle.length, paddle.margin
    rim = length + 3 * margin + int(np.ceil(paddle.thickness)) + 4
    width = paddle.side + 2 * rim
    degrees = np.deg2rad(np.arange(-DEGREES // 2, DEGREES // 2))
    candidates = circle(length + margin)
    turned = np.arctan2(candidates[:, 0], candidates[:, 1])
    angle = np.concatenate([degrees, turned])
    backward = np.where(turned < 0, turned + np.pi, turned - np.pi)
    line, mask = draw_all(paddle, np.concatenate([degrees, backward]))
    head = move(degrees, length)
    core = [window(np.argwhere(m == SATURATED) - len(m) // 2 + 1, length + margin) for m in mask[:DEGREES]]
    near, weight = follow(angle, turned, paddle.continuity)

    def flat(offsets: np.ndarray) -> np.ndarray:
        return offsets[..., 0] * width + offsets[..., 1]

    def sparse(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = [np.argwhere(image) for image in images]
        offsets = repeat_last([p - images.shape[1] // 2 for p in pixels])
        values = repeat_last([i[tuple(p.T)].astype(np.int16) for i, p in zip(images, pixels, strict=True)])
        return flat(offsets), values

    image = np.zeros((width, width), bool)
    image[rim:-rim, rim:-rim] = True
    (line_at, line_value), (mask_at, mask_value) = sparse(line), sparse(mask)
    return Paddles(
        width=width,
        rim=rim,
        inside=image.ravel(),
        line_at=line_at,
        line_value=line_value,
        mask_at=mask_at,
        mask_value=mask_value,
        starts=np.array([paddle.seeding == "clean" or covers_corners(c, paddle.side) for c in core]),
        core=flat(repeat_last(core)),
        core_box=np.stack([np.stack([c.min(0), c.max(0)], 1).ravel() for c in core]),
        head=flat(head),
        pivot=flat(head + move(degrees + np.pi, length + margin)),
        step=flat(move(angle, length + 2 * margin)),
        near=near,
        weight=weight,
        candidate=flat(candidates),
        disk=flat(drawing.disk(margin)),
    )


def move(angle: np.ndarray, distance: float) -> np.ndarray:
    """Displacements (n, 2), rounded up as in the published generator; an axis is not left by a rounding error."""
    exact = distance * np.stack([np.sin(angle), np.cos(angle)], -1)
    return np.ceil(exact.round(9)).astype(np.int64)


def covers_corners(core: np.ndarray, side: int) -> bool:
    """Whether the published generator finds room for a first paddle whose zone has the pixels ``core`` (n, 2).

    Its search for room dilates the occupancy map with OpenCV. Wherever the dilating pixels lie wholly outside the
    image, that writes the most negative number there is, and the search takes any negative number for "no room
    anywhere". The corners are where it can happen. Linsley's ``find_available_coordinates`` ("published") therefore
    never starts a contour in most directions on small images: 30 of 360 are left at 32 pixels, 95 at 64, 354 or 360
    (margin 2 or 3) at 128 and 360 at 256 (OpenCV 5.0.0; measured beside it). "clean" is the same without that test.
    """
    last = side - 1
    seen = np.array([[0, 0], [0, last], [last, 0], [last, last]])[:, None] + core
    inside = np.all((seen >= 0) & (seen <= last), axis=2)
    return bool(np.all(np.any(inside, axis=1)))


def circle(radius: int) -> np.ndarray:
    """The pixels (n, 2), rounded down, of a circle walked in arcs of one pixel."""
    angle = np.deg2rad(np.arange(0, 360, 360 / (2 * np.pi * radius)))
    return np.unique(np.floor(radius * np.stack([np.sin(angle), np.cos(angle)], -1)).astype(np.int64), axis=0)


def follow(angle: np.ndarray, candidates: np.ndarray, continuity: float) -> tuple[np.ndarray, np.ndarray]:
    """Per pose, the candidates with some weight after it, and their weights."""
    turn = abs(candidates - angle[:, None])
    turn = np.minimum(turn, 2 * np.pi - turn)
    weight = np.cos(np.minimum(continuity * turn, np.pi / 2)) ** 2
    weight[weight < 1e-12] = 0.0
    rows = [np.flatnonzero(w) for w in weight]
    near = repeat_last(rows)
    count = np.array([len(r) for r in rows])
    return near, np.take_along_axis(weight, near, 1) * (np.arange(near.shape[1]) < count[:, None])


def draw_all(paddle: Paddle, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines that start in the middle of (n, size, size) grey images, and the zones around them."""
    reach = paddle.length + int(np.ceil(paddle.thickness)) + paddle.margin
    scale = paddle.antialias_scale
    fine, centre, size = 2 * reach * scale + 1, reach * scale, 2 * reach + 1
    # Not ``move``: rounding errors are part of the published drawings, which reach a pixel less far at +-120 degrees.
    ends = np.ceil(centre + paddle.length * scale * np.stack([np.sin(angles), np.cos(angles)], -1)).astype(np.int64)
    line = drawing.lines(fine, centre, ends, round(paddle.thickness * scale))
    return drawing.reduce(line, size), drawing.reduce(drawing.dilate(line, paddle.margin * scale), size)


def window(offsets: np.ndarray, reach: int) -> np.ndarray:
    """Without those beyond the square that the published generator kept when it looked for room."""
    return offsets[(abs(offsets) <= reach).all(1)]


def repeat_last(rows: list[np.ndarray]) -> np.ndarray:
    """Stack rows of different lengths."""
    longest = max(map(len, rows))
    return np.stack([row[np.minimum(np.arange(longest), len(row) - 1)] for row in rows])
