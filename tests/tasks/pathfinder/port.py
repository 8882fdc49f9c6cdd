"""A second implementation of Pathfinder's published algorithm, written from its description and slow on purpose.

One image at a time, float64 maps, paddles drawn by Pillow and dilated by SciPy, nothing tabulated that chance decides.
It shares no code with the package; ``Scene`` only names the numbers.
"""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from attnprobe.tasks.pathfinder.scenes import Scene

DRAWS, TRIES = 3, 5  # of a paddle, of a distractor
CLOSED, CLASH, LEAST_WEIGHT, LEAST_ROOM = 0.3, 1.8, 1e-4, 0.01


@functools.cache
def disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2


def moved(place: tuple[int, int], angle: float, distance: float) -> tuple[int, int]:
    return math.ceil(place[0] + distance * math.sin(angle)), math.ceil(place[1] + distance * math.cos(angle))


@functools.lru_cache(maxsize=4096)
def sprite(length: int, thickness: float, margin: int, scale: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Line and zone of a paddle that starts in the middle, grey levels 0 .. 255."""
    reach = length + math.ceil(thickness) + margin
    centre = reach * scale
    end = moved((centre, centre), angle, length * scale)
    fine = Image.new("L", (2 * centre + 1, 2 * centre + 1))
    ImageDraw.Draw(fine).line([(centre, centre), end[::-1]], fill=255, width=round(thickness * scale))
    zone = ndimage.grey_dilation(np.asarray(fine), footprint=disk(margin * scale), mode="constant")
    size = (2 * reach + 1, 2 * reach + 1)
    return tuple(  # type: ignore[return-value]
        np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(int)
        for image in (fine, Image.fromarray(np.ascontiguousarray(zone)))
    )


def kernel(zone: np.ndarray, reach: int) -> np.ndarray:
    """What the search for room dilates with: a zone's saturated pixels, off the middle by one, in a smaller square."""
    shift = len(zone) // 2 - 1
    small = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    for y, x in np.argwhere(zone == 255) - shift:
        if max(abs(y), abs(x)) <= reach:
            small[reach + y, reach + x] = True
    return small


def dilated(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """The largest value under the footprint; beyond the image lies minus infinity, as in OpenCV's float64 dilation."""
    return ndimage.maximum_filter(image, footprint=footprint, mode="constant", cval=-np.inf)


@dataclasses.dataclass
class Snake:
    """A contour that grows: where its newest paddle is, and that paddle's zone, which is not yet on the map."""

    pivot: tuple[int, int]
    angle: float
    anchor: tuple[int, int]
    zone: np.ndarray
    tips: list[tuple[int, int]]
    angles: list[float]


class Port:
    """Draws images of one kind and margin; ``picture`` gives what the comparison looks at."""

    def __init__(self, scene: Scene, margin: int, generator: np.random.Generator) -> None:
        self.scene, self.margin, self.generator = scene, margin, generator
        self.reach = scene.paddle_length + math.ceil(scene.paddle_thickness) + margin
        self.side = scene.side
        self.empty = self.framed(np.zeros((self.side, self.side)), scene.padding)
        self.middle = functools.lru_cache(None)(self._middle)

    @staticmethod
    def framed(image: np.ndarray, border: int) -> np.ndarray:
        image = image.copy()
        image[:border], image[-border:], image[:, :border], image[:, -border:] = 1, 1, 1, 1
        return image

    def drawn(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        scene = self.scene
        return sprite(scene.paddle_length, scene.paddle_thickness, self.margin, scene.antialias_scale, angle)

    def pasted(self, small: np.ndarray, place: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where a sprite lies on the image, and the part of it that does."""
        low = [p - self.reach for p in place]
        cut = [slice(max(0, -at), min(len(small), self.side - at)) for at in low]
        at = (slice(low[0] + cut[0].start, low[0] + cut[0].stop), slice(low[1] + cut[1].start, low[1] + cut[1].stop))
        return at, small[cut[0], cut[1]] / 255

    def room(self, occupied: np.ndarray, angle: float) -> np.ndarray:
        """(n, 2) pixels at which a first paddle fits."""
        scene = self.scene
        seen = dilated(occupied, kernel(self.drawn(angle)[1], scene.paddle_length + self.margin))
        if scene.seeding == "published" and seen.min() < 0:
            return np.zeros((0, 2), int)
        return np.argwhere(seen <= CLOSED)

    def _middle(self, degree: int) -> np.ndarray:
        border = 2 * self.scene.seed_distance
        places = self.room(self.framed(self.empty, border), math.radians(degree))
        return places[
            ((places >= border) & (places < self.side - border)).all(1)
        ]  # not where the zone is off the image

    def first(self, tail: tuple[int, int], angle: float) -> Snake | None:
        scene = self.scene
        head = moved(tail, angle, scene.paddle_length)
        back = angle + math.pi if angle < 0 else angle - math.pi
        pivot = moved(head, back, scene.paddle_length + self.margin)
        if not all(0 <= v < self.side for v in (*head, *pivot)):
            return None
        return Snake(pivot=pivot, angle=angle, anchor=tail, zone=self.drawn(angle)[1], tips=[tail], angles=[angle])

    def direction(self) -> int:
        return int(self.generator.integers(-180, 180))

    def pair(self) -> list[Snake] | None:
        """The beginnings of the two long contours."""
        a = self._first_of_a()
        if a is None:
            return None
        for _ in range(DRAWS):
            around = math.radians(int(self.generator.integers(0, 360)))
            far = self.scene.seed_distance
            tail = round(a.anchor[0] + far * math.sin(around)), round(a.anchor[1] + far * math.cos(around))
            b = self.first(tail, math.radians(self.direction()))
            if b is not None:
                return [a, b]
        return None

    def _first_of_a(self) -> Snake | None:
        for _ in range(DRAWS):
            degree = self.direction()
            places = self.middle(degree)
            if not len(places):
                return None
            y, x = self.generator.choice(places)
            snake = self.first((int(y), int(x)), math.radians(degree))
            if snake is not None:
                return snake
        return None

    def choices(self, occupied: np.ndarray, pivot: tuple[int, int], angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Possible heads (n, 2) of the next paddle, and their weights (n,)."""
        radius = self.scene.paddle_length + self.margin
        around = np.deg2rad(np.arange(0, 360, 360 / (2 * math.pi * radius)))
        exact = np.stack([pivot[0] + radius * np.sin(around), pivot[1] + radius * np.cos(around)], 1)
        inside = exact[((exact >= 0) & (exact < self.side)).all(1)].astype(int)
        heads = np.stack(np.divmod(np.unique(inside[:, 0] * self.side + inside[:, 1]), self.side), 1)
        if not len(heads):
            return heads, np.zeros(0)
        low, high = np.maximum(heads.min(0) - self.margin, 0), heads.max(0) + self.margin + 1
        near = dilated(occupied[low[0] : high[0], low[1] : high[1]], disk(self.margin))
        turn = abs(np.arctan2(*(heads - pivot).T) - angle)
        turn = np.minimum(self.scene.continuity * np.minimum(turn, 2 * math.pi - turn), math.pi / 2)
        return heads, np.cos(turn) ** 2 * (1 - near[tuple((heads - low).T)])

    def extend(self, snake: Snake, occupied: np.ndarray) -> bool:
        pivot = moved(snake.pivot, snake.angle, self.scene.paddle_length + 2 * self.margin)
        heads, weight = self.choices(occupied, pivot, snake.angle)
        if weight.sum() < LEAST_WEIGHT:
            return False
        share = weight.cumsum() / weight.sum()
        for _ in range(DRAWS):
            y, x = heads[int((share > self.generator.random()).argmax())]
            head = (int(y), int(x))
            angle = math.atan2(head[0] - pivot[0], head[1] - pivot[1])
            zone = self.drawn(angle + math.pi if angle < 0 else angle - math.pi)[1]
            at, part = self.pasted(zone, head)
            if (occupied[at] + part).max() < CLASH:
                self.enter(snake, occupied)
                snake.pivot, snake.angle, snake.anchor, snake.zone = pivot, angle, head, zone
                snake.tips.append(head)
                snake.angles.append(angle)
                return True
        return False

    def enter(self, snake: Snake, occupied: np.ndarray) -> None:
        at, part = self.pasted(snake.zone, snake.anchor)
        occupied[at] = np.maximum(occupied[at], part)

    def targets(self) -> tuple[list[Snake], np.ndarray]:
        while True:
            occupied, snakes = self.empty.copy(), self.pair()
            rounds = range(self.scene.contour_length - 1)
            if snakes is not None and all(self.extend(s, occupied) for _ in rounds for s in snakes):
                self.enter(snakes[1], occupied)  # and not that of the first
                return snakes, occupied

    def distractor(self, occupied: np.ndarray) -> tuple[Snake, np.ndarray] | None:
        """One try; the map with the distractor on it."""
        snake = None
        for _ in range(DRAWS):
            angle = math.radians(self.direction())
            places = self.room(self.framed(occupied, 1), angle)
            if (occupied <= CLOSED).mean() < LEAST_ROOM or not len(places):
                return None
            y, x = self.generator.choice(places)
            snake = self.first((int(y), int(x)), angle)
            if snake is not None:
                break
        after = occupied.copy()
        if snake is None or not all(self.extend(snake, after) for _ in range(self.scene.distractor_length - 1)):
            return None
        self.enter(snake, after)
        return snake, after

    def paint(self, image: np.ndarray, snake: Snake, contrast: float) -> None:
        for i, (tip, angle) in enumerate(zip(snake.tips, snake.angles, strict=True)):
            drawn = angle if i == 0 else (angle + math.pi if angle < 0 else angle - math.pi)
            at, part = self.pasted(self.drawn(drawn)[0], tip)
            image[at] = np.maximum(image[at], part * contrast)

    def marker(self, place: tuple[int, int]) -> np.ndarray:
        scale = self.scene.antialias_scale
        y, x = np.ogrid[: self.side * scale, : self.side * scale]
        far = (y - place[0] * scale) ** 2 + (x - place[1] * scale) ** 2
        fine = Image.fromarray(np.where(far <= (self.scene.marker_radius * scale) ** 2, 255, 0).astype(np.uint8))
        return np.asarray(fine.resize((self.side, self.side), Image.Resampling.LANCZOS)) / 255

    def picture(self, label: int) -> dict[str, float]:
        """One image as numbers: see ``statistics``."""
        scene = self.scene
        snakes, occupied = self.targets()
        image = np.zeros((self.side, self.side))
        for snake in snakes:  # every list of contrasts of the published kinds has one entry
            self.paint(image, snake, scene.contour_contrasts[0] * scene.paddle_contrasts[0])
        placed = 0
        for _ in range(scene.distractors):
            found = next((f for f in (self.distractor(occupied) for _ in range(TRIES)) if f is not None), None)
            if found is not None:
                placed += 1
                occupied = found[1]
                self.paint(image, found[0], scene.contour_contrasts[0])
        first = int(self.generator.integers(0, 2))
        second = first if label else 1 - first
        image = np.maximum(image, np.maximum(self.marker(snakes[first].tips[0]), self.marker(snakes[second].tips[-1])))
        stretched = np.floor((image - image.min()) * (255 / (image.max() - image.min())) + 0.5)
        turns = [math.remainder(s.angles[1] - s.angles[0], 2 * math.pi) for s in snakes]
        return {
            "mean grey": float(stretched.mean()),
            "distractors placed": placed,
            "occupied share": float((occupied > CLOSED).mean()),
            "first turn, |degrees|": math.degrees(abs(turns[0]) + abs(turns[1])) / 2,
            "sine of A's start": math.sin(snakes[0].angles[0]),
            "cosine of A's start": math.cos(snakes[0].angles[0]),
        }
