"""Growing contours on occupancy maps, for many images in lockstep.

A map (width * width,) holds bytes: 255 where no paddle may lie, less near the rim of a paddle's zone. The zone of a
contour's newest paddle is entered one step late, or the next paddle could not join it. Chance decides as in the
published generator: direction, then place, then every turn, with a few second tries and then a fresh start.
"""

import dataclasses

import numpy as np

from attnprobe.tasks.pathfinder.paddles import DEGREES, Paddles

DRAWS = 3  # of a paddle before its contour is given up
OCCUPIED = 77  # map values above 0.3 * 255 are closed to a contour's first paddle
CLASH = 459  # 1.8 * 255: two zones may touch with their faint rims only
LEAST_WEIGHT = 1e-4  # of all candidates together
TRIES_IN_ONE_GO = 32  # random pixels looked at before all pixels are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tips:
    """The newest paddles of contours (b,), each on its own map, and the pivots that placed them."""

    origin: np.ndarray  # index of the first pixel of the contour's map
    pivot: np.ndarray  # position
    anchor: np.ndarray  # position from which the paddle is drawn
    pose: np.ndarray

    def take(self, chosen: np.ndarray) -> "Tips":
        return Tips(
            origin=self.origin[chosen], pivot=self.pivot[chosen], anchor=self.anchor[chosen], pose=self.pose[chosen]
        )


def extend(paddles: Paddles, maps: np.ndarray, tips: Tips, generator: np.random.Generator) -> tuple[Tips, np.ndarray]:
    """One paddle more for each contour; returns the new tips (b,) and which contours could go on (b,).

    maps: (all pixels of all maps,) bytes; the zones of the former paddles are entered where a contour went on.
    """
    pivot = tips.pivot + paddles.step[tips.pose]
    near = paddles.near[tips.pose]
    heads = pivot[:, None] + paddles.candidate[near]
    total = weights(paddles, maps, tips, heads).cumsum(1)
    possible = total[:, -1] >= LEAST_WEIGHT
    anchor, pose, placed = np.zeros_like(pivot), np.zeros_like(pivot), np.zeros(len(pivot), bool)
    waiting = np.flatnonzero(possible)
    for _ in range(DRAWS):
        chosen = (total[waiting] > (generator.random(len(waiting)) * total[waiting, -1])[:, None]).argmax(1)
        anchor[waiting], pose[waiting] = heads[waiting, chosen], DEGREES + near[waiting, chosen]
        fits = ~clashes(paddles, maps, tips.origin[waiting], anchor[waiting], pose[waiting])
        placed[waiting[fits]] = True
        waiting = waiting[~fits]
    enter(paddles, maps, tips.take(placed))
    return Tips(origin=tips.origin, pivot=pivot, anchor=anchor, pose=pose), placed


def weights(paddles: Paddles, maps: np.ndarray, tips: Tips, heads: np.ndarray) -> np.ndarray:
    """How readily contours (b,) go on to the heads (b, choices): straight ahead and far from other zones is best."""
    closed = maps[(tips.origin[:, None] + heads)[:, :, None] + paddles.disk].max(2)
    return paddles.weight[tips.pose] * paddles.inside[heads] * ((255 - closed) / 255)


def clashes(paddles: Paddles, maps: np.ndarray, origin: np.ndarray, anchor: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Whether paddles (b,) would come too near to what their maps hold."""
    pixels = (origin + anchor)[:, None] + paddles.mask_at[pose]
    return np.any(maps[pixels] + paddles.mask_value[pose] >= CLASH, axis=1)


def enter(paddles: Paddles, maps: np.ndarray, tips: Tips) -> None:
    """Mark the zones of paddles (b,), no two of them on the same map."""
    pixels = tips.anchor[:, None] + paddles.mask_at[tips.pose]
    zone = paddles.mask_value[tips.pose] * paddles.inside[pixels]
    pixels += tips.origin[:, None]
    maps[pixels] = np.maximum(maps[pixels], zone)


def seed(
    paddles: Paddles, maps: np.ndarray, origin: np.ndarray, generator: np.random.Generator
) -> tuple[Tips, np.ndarray]:
    """First paddles on maps (b,) wherever there is room; returns tips (b,) and where that succeeded (b,).

    A direction out of ``Paddles.starts`` ends the search at once, as a full map does; only a paddle that would leave
    the image is drawn again.
    """
    pose, tail = np.zeros_like(origin), np.zeros_like(origin)
    placed = np.zeros(len(origin), bool)
    waiting = np.arange(len(origin))
    for _ in range(DRAWS):
        direction = generator.integers(0, DEGREES, len(waiting))
        position = free_pixel(paddles, maps, origin[waiting], direction, generator)
        pose[waiting], tail[waiting] = direction, position
        found = (position >= 0) & paddles.starts[direction]
        ends = position[:, None] + np.stack([paddles.head[direction], paddles.pivot[direction]], 1)
        placed[waiting] = found & paddles.inside[np.where(found[:, None], ends, 0)].all(1)
        waiting = waiting[found & ~placed[waiting]]
    return Tips(origin=origin, pivot=tail + paddles.pivot[pose], anchor=tail, pose=pose), placed


def free_pixel(
    paddles: Paddles, maps: np.ndarray, origin: np.ndarray, direction: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """(b,) a random position per map with room for a first paddle in the given direction; -1 where there is none."""
    pixels = np.flatnonzero(paddles.inside)
    tried = pixels[generator.integers(0, len(pixels), (len(origin), TRIES_IN_ONE_GO))]
    core = paddles.core[direction]
    free = np.all(maps[(origin[:, None] + tried)[:, :, None] + core[:, None, :]] < OCCUPIED, axis=2)
    chosen = np.where(free.any(1), tried[np.arange(len(tried)), free.argmax(1)], -1)
    for i in np.flatnonzero(chosen < 0):
        everywhere = pixels[np.all(maps[origin[i] + pixels[:, None] + core[i]] < OCCUPIED, axis=1)]
        if len(everywhere):
            chosen[i] = generator.choice(everywhere)
    return chosen
