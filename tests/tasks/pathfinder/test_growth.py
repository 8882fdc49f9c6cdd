"""Tables and look-ups against a plain reading of the published algorithm on whole images, one contour at a time."""

import math

import numpy as np
import pytest
from scipy import ndimage

from attnprobe.tasks.pathfinder.growth import OCCUPIED, Tips, clashes, enter, extend, free_pixel, weights
from attnprobe.tasks.pathfinder.paddles import DEGREES, Paddle, Paddles, tabulate
from tests.tasks.pathfinder import port
from tests.tasks.pathfinder.port import disk, moved

KINDS = {
    32: Paddle(side=32, length=2, thickness=0.5, margin=1, antialias_scale=2, continuity=1.0, seeding="clean"),
    64: Paddle(side=64, length=5, thickness=1.0, margin=1, antialias_scale=2, continuity=1.8, seeding="clean"),
    128: Paddle(side=128, length=5, thickness=1.5, margin=3, antialias_scale=2, continuity=1.8, seeding="clean"),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=map(str, KINDS))


def sprite(kind: Paddle, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return port.sprite(kind.length, kind.thickness, kind.margin, kind.antialias_scale, angle)


def pasted(kind: Paddle, small: np.ndarray, y: int, x: int) -> np.ndarray:
    reach = len(small) // 2
    image = np.zeros((kind.side + 2 * reach, kind.side + 2 * reach), int)
    image[y : y + 2 * reach + 1, x : x + 2 * reach + 1] = small
    return image[reach:-reach, reach:-reach]


def angle_of(kind: Paddle, table: Paddles, pose: int) -> float:
    if pose < DEGREES:
        return math.radians(pose - 180)
    dy, dx = divmod(int(table.candidate[pose - DEGREES]) + table.width // 2, table.width)
    return math.atan2(dy, dx - table.width // 2)


def random_map(kind: Paddle, table: Paddles, seed: int, share: float = 0.04) -> tuple[np.ndarray, np.ndarray]:
    """An image and the same as a map with its rim."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (kind.side, kind.side)) * (generator.random((kind.side, kind.side)) < share)
    image[[0, -1]], image[:, [0, -1]] = 255, 255
    return image, np.pad(image.astype(np.uint8), table.rim).ravel()


def unplace(table: Paddles, position: int) -> tuple[int, int]:
    y, x = divmod(int(position), table.width)
    return y - table.rim, x - table.rim


@kinds
def test_every_paddle_is_drawn_as_pillow_does(kind: Paddle) -> None:
    table = tabulate(kind)
    y, x = 5, kind.side - 4  # parts of most paddles stick out of the image
    for pose in range(0, len(table.step), 7):
        angle = angle_of(kind, table, pose)
        drawn = sprite(kind, angle if pose < DEGREES else angle - math.pi)
        for small, at, value in (
            (drawn[0], table.line_at, table.line_value),
            (drawn[1], table.mask_at, table.mask_value),
        ):
            canvas = np.zeros(table.width**2, int)
            canvas[table.place(np.array(y), np.array(x)) + at[pose]] = value[pose]
            found = (canvas * table.inside).reshape(table.width, -1)[table.rim : -table.rim, table.rim : -table.rim]
            assert abs(found - pasted(kind, small, y, x)).max() <= 1


def expected_weights(
    kind: Paddle, image: np.ndarray, pivot: tuple[int, int], angle: float
) -> dict[tuple[int, int], float]:
    stride, radius = kind.length + 2 * kind.margin, kind.length + kind.margin
    qy, qx = moved(pivot, angle, stride)
    closed = ndimage.grey_dilation(image, footprint=disk(kind.margin), mode="constant") / 255
    found: dict[tuple[int, int], float] = {}
    for degree in np.arange(0, 360, 360 / (2 * math.pi * radius)):
        y = math.floor(qy + radius * math.sin(math.radians(degree)))
        x = math.floor(qx + radius * math.cos(math.radians(degree)))
        if 0 <= y < kind.side and 0 <= x < kind.side:
            turn = abs(math.atan2(y - qy, x - qx) - angle)
            turn = min(kind.continuity * min(turn, 2 * math.pi - turn), math.pi / 2)
            found[y, x] = math.cos(turn) ** 2 * (1 - closed[y, x])
    return {place: weight for place, weight in found.items() if weight > 1e-9}


@kinds
def test_candidates_and_their_weights(kind: Paddle) -> None:
    table = tabulate(kind)
    generator = np.random.default_rng(5)
    for case in range(60):
        image, occupied = random_map(kind, table, case)
        pivot = tuple(int(v) for v in generator.integers(2, kind.side - 2, 2))
        pose = int(generator.integers(0, len(table.step)))
        position = table.place(np.array([pivot[0]]), np.array([pivot[1]]))
        tips = Tips(origin=np.zeros(1, np.int64), pivot=position, anchor=position, pose=np.array([pose]))
        heads = (position + table.step[pose])[:, None] + table.candidate[table.near[[pose]]]
        found = weights(table, occupied, tips, heads)[0]
        got = {unplace(table, head): weight for head, weight in zip(heads[0], found, strict=True) if weight > 1e-9}
        assert got == pytest.approx(expected_weights(kind, image, pivot, angle_of(kind, table, pose)))


@kinds
def test_clashes_and_zones(kind: Paddle) -> None:
    table = tabulate(kind)
    generator = np.random.default_rng(6)
    outcomes = []
    for case in range(60):
        image, occupied = random_map(kind, table, case, share=0.02)
        y, x = (int(v) for v in generator.integers(1, kind.side - 1, 2))
        pose = int(generator.integers(0, DEGREES))
        zone = pasted(kind, sprite(kind, angle_of(kind, table, pose))[1], y, x)
        one = np.zeros(1, np.int64)
        anchor = table.place(np.array([y]), np.array([x]))
        highest = (image + zone).max()
        if abs(highest - 459) > 1:  # a grey level of rounding could decide
            assert clashes(table, occupied, one, anchor, np.array([pose]))[0] == (highest >= 459)
            outcomes.append(highest >= 459)
        enter(table, occupied, Tips(origin=one, pivot=anchor, anchor=anchor, pose=np.array([pose])))
        after = occupied.reshape(table.width, -1)
        inner = after[table.rim : -table.rim, table.rim : -table.rim]
        assert abs(inner.astype(int) - np.maximum(image, zone)).max() <= 1
        assert after.sum() == inner.sum()  # nothing outside the image
    assert 0 < sum(outcomes) < len(outcomes)


@kinds
def test_first_paddles_lie_only_where_there_is_room(kind: Paddle) -> None:
    table = tabulate(kind)
    reach = kind.length + kind.margin
    generator = np.random.default_rng(7)
    for case, share in enumerate([0.002, 0.05, 0.3]):
        image, occupied = random_map(kind, table, case, share)
        direction = int(generator.integers(0, DEGREES))
        small = sprite(kind, math.radians(direction - 180))[1]
        kernel = port.kernel(small, reach)
        # OpenCV's dilation looks up p + k, SciPy's p - k
        closed = ndimage.binary_dilation(image >= OCCUPIED, kernel[::-1, ::-1])
        room = {(int(y), int(x)) for y, x in np.argwhere(~closed)}
        draws = 200
        drawn = free_pixel(table, occupied, np.zeros(draws, np.int64), np.full(draws, direction), generator)
        if room:
            found = {unplace(table, position) for position in drawn}
            assert found <= room
            assert len(found) >= 0.5 * min(len(room), draws)
        else:
            assert (drawn == -1).all()


def test_extension_draws_by_weight_and_gives_up_when_boxed_in() -> None:
    kind = KINDS[32]
    table = tabulate(kind)
    n, size = 4000, table.width**2
    maps = np.zeros((n, size), np.uint8)
    centre = table.place(np.full(n, 16), np.full(n, 16))
    tips = Tips(origin=np.arange(n) * size, pivot=centre, anchor=centre, pose=np.full(n, 200))
    after, placed = extend(table, maps.reshape(-1), tips, np.random.default_rng(8))
    assert placed.all()
    share = np.bincount(after.pose - DEGREES, minlength=len(table.candidate)) / n
    expected = np.zeros(len(table.candidate))
    np.add.at(expected, table.near[200], table.weight[200])
    expected /= expected.sum()
    assert (abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-12).all()
    assert (maps.max(1) == 255).all()  # the former paddle's zone is entered
    maps[:] = 255
    _, placed = extend(table, maps.reshape(-1), tips, np.random.default_rng(8))
    assert not placed.any()
