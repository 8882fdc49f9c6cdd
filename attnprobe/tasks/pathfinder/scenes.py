"""Whole Pathfinder images: two long contours, shorter distractors, and a disk at two of the long contours' ends.

Linsley et al. 2018, "Learning long-range spatial dependencies with horizontal gated recurrent units"; the variants of
the Long Range Arena. An image of class 1 has its two disks on the same contour.
"""

import dataclasses
from typing import get_args

import numpy as np

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError
from attnprobe.tasks.pathfinder import drawing
from attnprobe.tasks.pathfinder.growth import OCCUPIED, Tips, enter, extend, seed
from attnprobe.tasks.pathfinder.paddles import DEGREES, Paddle, Paddles, Seeding, tabulate

ATTEMPTS = 512  # pairs of contours that grow at a time
HOPELESS = 1 << 17  # attempts that may fail in a row
CONTOUR_TRIES = 5  # of a distractor
LEAST_ROOM = 0.01  # share of free pixels below which no further distractor is tried


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """All parameters of one kind of image; lengths in pixels, numbers of paddles for contours."""

    side: int
    padding: int  # border in which no paddle may lie
    seeding: Seeding  # "published": the directions in which the published generator starts contours; "clean": all
    seed_distance: int  # between the beginnings of the two contours
    paddle_length: int
    paddle_thickness: float
    paddle_margins: tuple[int, ...]  # one is drawn per image
    marker_radius: float
    contour_length: int
    continuity: float
    antialias_scale: int
    distractor_length: int
    distractors: int
    contour_contrasts: tuple[float, ...]
    paddle_contrasts: tuple[float, ...]

    def __post_init__(self) -> None:
        require_positive(self, "padding", "seed_distance", "paddle_length", "paddle_thickness", "marker_radius")
        require_positive(self, "continuity", "antialias_scale", "distractor_length")
        require(self.seeding in get_args(Seeding), "seeding", f"must be 'published' or 'clean', got {self.seeding!r}")
        require(self.contour_length >= 2, "contour_length", f"must be at least 2, got {self.contour_length}")
        require(self.distractors >= 0, "distractors", f"must not be negative, got {self.distractors}")
        for name in ("paddle_margins", "contour_contrasts", "paddle_contrasts"):
            values = getattr(self, name)
            require(len(values) > 0 and min(values) > 0, name, f"must hold positive numbers, got {list(values)}")
        fine = self.paddle_thickness * self.antialias_scale
        whole = fine == round(fine)
        require(whole, "paddle_thickness", f"times antialias_scale must be a whole number of pixels, got {fine:g}")
        most = (self.side - self.paddle_length - 2 * max(self.paddle_margins)) // 4
        least = max(self.padding // 2, self.paddle_length + max(self.paddle_margins)) + 1
        distance = f"must lie between {least} and {most} pixels, got {self.seed_distance}"
        require(least <= self.seed_distance <= most, "seed_distance", distance)

    def paddle(self, margin: int) -> Paddle:
        return Paddle(
            side=self.side,
            length=self.paddle_length,
            thickness=self.paddle_thickness,
            margin=margin,
            antialias_scale=self.antialias_scale,
            continuity=self.continuity,
            seeding=self.seeding,
        )

    def paddles(self, margin: int) -> Paddles:
        return tabulate(self.paddle(margin))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chains:
    """Contours as drawn: chains of paddles on images, in the order of growth."""

    anchor: np.ndarray  # (n, paddles) positions
    pose: np.ndarray  # (n, paddles)


def draw_scenes(scene: Scene, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images (n, side, side) uint8 of the given classes (n,)."""
    images = np.zeros((len(labels), scene.side, scene.side), np.uint8)
    margins = np.array(scene.paddle_margins)[generator.integers(0, len(scene.paddle_margins), len(labels))]
    for margin in sorted(set(scene.paddle_margins)):
        chosen = np.flatnonzero(margins == margin)
        if len(chosen):
            images[chosen] = _draw(scene, scene.paddles(margin), labels[chosen], generator)
    return images


def _draw(scene: Scene, paddles: Paddles, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    n, size = len(labels), paddles.width**2
    targets, maps = grow_targets(scene, paddles, n, generator)
    canvas = np.zeros((n, size), np.float32)
    contrasts = target_contrasts(scene, n, generator)
    for contour in (0, 1):
        paint(paddles, canvas, np.arange(n), targets[contour], contrasts[:, contour])
    for _ in range(scene.distractors):
        images, chains = grow_distractors(scene, paddles, maps, generator)
        choice = generator.integers(0, len(scene.contour_contrasts), chains.pose.shape)
        paint(paddles, canvas, images, chains, np.array(scene.contour_contrasts)[choice])
    first = generator.integers(0, 2, n)
    second = np.where(labels == 1, first, 1 - first)
    rows = np.arange(n)
    for contour, end in ((first, 0), (second, -1)):
        mark(scene, paddles, canvas, np.stack([chain.anchor[:, end] for chain in targets])[contour, rows])
    rim = paddles.rim
    return drawing.stretch(canvas.reshape(n, paddles.width, paddles.width)[:, rim:-rim, rim:-rim].astype(np.float64))


def grow_targets(
    scene: Scene, paddles: Paddles, n: int, generator: np.random.Generator
) -> tuple[tuple[Chains, Chains], np.ndarray]:
    """The two long contours of n images, and maps (n, width * width) of what they occupy."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    missing, failed = n, 0
    while missing > 0:
        maps, anchor, pose = _attempt(scene, paddles, generator)
        found.append((maps[:missing], anchor[:missing], pose[:missing]))
        missing -= len(maps)
        failed = 0 if len(maps) else failed + ATTEMPTS
        if failed >= HOPELESS:
            raise ConfigError(
                f"two contours of {scene.contour_length} paddles do not fit into {scene.side} pixels",
                hint="shorten contour_length or paddle_length",
            )
    maps, anchor, pose = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return (Chains(anchor=anchor[:, 0], pose=pose[:, 0]), Chains(anchor=anchor[:, 1], pose=pose[:, 1])), maps


def _attempt(
    scene: Scene, paddles: Paddles, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps (k, size), anchors and poses (k, 2, paddles) of the attempts in which both contours reached full length."""
    size = paddles.width**2
    maps = np.tile(empty_map(scene, paddles), (ATTEMPTS, 1))
    flat = maps.reshape(-1)
    tips = list(seed_targets(scene, paddles, np.arange(ATTEMPTS) * size, generator))
    anchor = np.zeros((ATTEMPTS, 2, scene.contour_length), np.int64)
    pose = np.zeros_like(anchor)
    for paddle in range(scene.contour_length):
        for contour in (0, 1):
            if paddle > 0:
                tips[contour], alive = extend(paddles, flat, tips[contour], generator)
                tips = [tip.take(alive) for tip in tips]
            attempt = tips[contour].origin // size
            anchor[attempt, contour, paddle] = tips[contour].anchor
            pose[attempt, contour, paddle] = tips[contour].pose
    enter(paddles, flat, tips[1])  # the first contour's last zone is left open, as in the published generator
    attempt = tips[1].origin // size
    return maps[attempt], anchor[attempt], pose[attempt]


def empty_map(scene: Scene, paddles: Paddles) -> np.ndarray:
    image = np.zeros((scene.side, scene.side), np.uint8)
    border = np.ones_like(image, bool)
    border[scene.padding : -scene.padding, scene.padding : -scene.padding] = False
    image[border] = 255
    return np.pad(image, paddles.rim).ravel()


def seed_targets(
    scene: Scene, paddles: Paddles, origin: np.ndarray, generator: np.random.Generator
) -> tuple[Tips, Tips]:
    """First paddles of the two contours: one in the middle, the other ``seed_distance`` away in any direction.

    The middle is what is left after a border of twice that distance and the room a paddle needs; there is no need to
    ask whether the second one still lies in the image. Only the first one is held to ``Paddles.starts``: the published
    generator asks for room for it alone.
    """
    n = len(origin)
    box = paddles.core_box
    low, high = 2 * scene.seed_distance - box[:, 0::2], scene.side - 2 * scene.seed_distance - box[:, 1::2]
    directions = np.flatnonzero((high > low).all(1) & paddles.starts)
    if not len(directions):
        raise ConfigError(
            f"no first paddle fits {2 * scene.seed_distance} pixels from every side of the image",
            hint="choose a smaller task.seed_distance or a larger task.side",
        )
    first = directions[generator.integers(0, len(directions), n)]
    tail = generator.integers(low[first], high[first])
    second = generator.integers(0, DEGREES, n)
    angle = np.deg2rad(generator.integers(0, DEGREES, n))
    other = np.rint(tail + scene.seed_distance * np.stack([np.sin(angle), np.cos(angle)], 1)).astype(np.int64)
    tips = []
    for pose, (y, x) in ((first, tail.T), (second, other.T)):
        anchor = paddles.place(y, x)
        tips.append(Tips(origin=origin, pivot=anchor + paddles.pivot[pose], anchor=anchor, pose=pose))
    return tips[0], tips[1]


def grow_distractors(
    scene: Scene, paddles: Paddles, maps: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, Chains]:
    """One more short contour on every map (n, size) with room for it: which images got one (k,), and their chains."""
    size = paddles.width**2
    image = maps.reshape(len(maps), paddles.width, -1)[:, paddles.rim : -paddles.rim, paddles.rim : -paddles.rim]
    waiting = np.flatnonzero((image < OCCUPIED).mean((1, 2)) >= LEAST_ROOM)
    done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(CONTOUR_TRIES):
        trial = maps[waiting]
        flat = trial.reshape(-1)
        tips, alive = seed(paddles, flat, np.arange(len(waiting)) * size, generator)
        tips = tips.take(alive)
        chain = [tips]
        for _ in range(scene.distractor_length - 1):
            tips, alive = extend(paddles, flat, tips, generator)
            tips = tips.take(alive)
            chain = [*(former.take(alive) for former in chain), tips]
        enter(paddles, flat, tips)
        whole = tips.origin // size
        maps[waiting[whole]] = trial[whole]
        done.append((waiting[whole], np.stack([t.anchor for t in chain], 1), np.stack([t.pose for t in chain], 1)))
        waiting = np.delete(waiting, whole)
    images, anchor, pose = (np.concatenate(parts) for parts in zip(*done, strict=True))
    return images, Chains(anchor=anchor, pose=pose)


def target_contrasts(scene: Scene, n: int, generator: np.random.Generator) -> np.ndarray:
    """(n, 2, paddles): a contrast per contour times one per paddle, which from the second on both contours share."""
    own = generator.permuted(np.tile(scene.contour_contrasts * 2, (n, 1)), axis=1)[:, :2, None]
    choice = generator.integers(0, len(scene.paddle_contrasts), (n, 2, scene.contour_length))
    choice[:, 1, 1:] = choice[:, 0, 1:]
    return own * np.array(scene.paddle_contrasts)[choice]


def paint(paddles: Paddles, canvas: np.ndarray, images: np.ndarray, chains: Chains, contrasts: np.ndarray) -> None:
    """Draw chains (k, paddles) on the images (k,) of canvas (n, size); the brighter of two drawings shows."""
    rows = images[:, None]
    for paddle in range(chains.pose.shape[1]):
        pose = chains.pose[:, paddle]
        pixels = chains.anchor[:, paddle, None] + paddles.line_at[pose]
        grey = paddles.line_value[pose] * (contrasts[:, paddle, None] / 255)
        canvas[rows, pixels] = np.maximum(canvas[rows, pixels], grey)


def mark(scene: Scene, paddles: Paddles, canvas: np.ndarray, position: np.ndarray) -> None:
    """Draw a disk at one position (n,) per image. Its middle lies on a corner of a fine pixel, as published."""
    reach = int(np.ceil(scene.marker_radius)) + 2
    size, scale = 2 * reach + 1, scene.antialias_scale
    fine = np.arange(size * scale) - reach * scale
    inside = fine[:, None] ** 2 + fine**2 <= (scene.marker_radius * scale) ** 2
    grey = drawing.reduce(inside[None], size)[0]
    pixels = np.argwhere(grey)
    at = position[:, None] + (pixels - reach) @ np.array([paddles.width, 1])
    rows = np.arange(len(canvas))[:, None]
    canvas[rows, at] = np.maximum(canvas[rows, at], grey[tuple(pixels.T)] / 255)
