"""Statistics of Pathfinder images, of this package and of the independent port, side by side.

    python -m tests.tasks.pathfinder.statistics SIDE IMAGES IMAGES_OF_THE_PORT DISTRACTOR_RULE SEEDING

Per image: mean grey level, distractors that found a place, share of the final map on which no contour may start,
angle between the first two paddles (mean of both long contours), and the direction of contour A's first paddle.
"""

import dataclasses
import math
import sys
from unittest import mock

import numpy as np

from attnprobe.tasks.pathfinder import scenes
from attnprobe.tasks.pathfinder.growth import OCCUPIED
from attnprobe.tasks.pathfinder.paddles import DEGREES, Paddles
from attnprobe.tasks.pathfinder.scenes import Chains, Scene, draw_scenes
from attnprobe.tasks.pathfinder.task import Pathfinder
from tests.tasks.pathfinder.port import Port

Table = dict[str, np.ndarray]  # statistic to its values (n,)


def of_the_package(scene: Scene, n: int, seed: int = 0) -> Table:
    """n images, equally many of each margin."""
    parts = [
        _one_margin(dataclasses.replace(scene, paddle_margins=(margin,)), n // len(scene.paddle_margins), seed)
        for margin in scene.paddle_margins
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _one_margin(scene: Scene, n: int, seed: int) -> Table:
    table = scene.paddles(scene.paddle_margins[0])
    grow_targets, grow_distractors = scenes.grow_targets, scenes.grow_distractors
    seen: dict[str, tuple[tuple[Chains, Chains], np.ndarray]] = {}
    placed = np.zeros(n)

    def targets(*arguments: object) -> object:
        seen["targets"] = result = grow_targets(*arguments)  # type: ignore[arg-type]
        return result

    def distractors(*arguments: object) -> object:
        result = grow_distractors(*arguments)  # type: ignore[arg-type]
        placed[result[0]] += 1
        return result

    with mock.patch.multiple(scenes, grow_targets=targets, grow_distractors=distractors):
        images = draw_scenes(scene, np.arange(n) % 2, np.random.default_rng(seed))
    chains, maps = seen["targets"]
    first, second = ([angles(table, chain.pose[:, paddle]) for chain in chains] for paddle in (0, 1))
    turns = [abs(np.remainder(b - a + math.pi, 2 * math.pi) - math.pi) for a, b in zip(first, second, strict=True)]
    inner = maps.reshape(n, table.width, -1)[:, table.rim : -table.rim, table.rim : -table.rim]
    return {
        "mean grey": images.mean((1, 2)),
        "distractors placed": placed,
        "occupied share": (inner >= OCCUPIED).mean((1, 2)),
        "first turn, |degrees|": np.rad2deg((turns[0] + turns[1]) / 2),
        "sine of A's start": np.sin(first[0]),
        "cosine of A's start": np.cos(first[0]),
    }


def angles(table: Paddles, pose: np.ndarray) -> np.ndarray:
    """In which direction paddles (n,) lead on, radians."""
    y = (table.candidate + table.width // 2) // table.width
    turned = np.arctan2(y, table.candidate - y * table.width)
    return np.concatenate([np.deg2rad(np.arange(-DEGREES // 2, DEGREES // 2)), turned])[pose]


def of_the_port(scene: Scene, n: int, seed: int = 0) -> Table:
    generator = np.random.default_rng(seed)
    margins = scene.paddle_margins
    ports = [Port(scene, margin, generator) for margin in margins]
    rows = [port.picture(i % 2) for port in ports for i in range(n // len(margins))]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def main(side: int, ours: int, ports: int, rule: str, seeding: str) -> None:
    scene = Pathfinder(side=side, seeding=seeding, distractor_rule=rule).scene()  # type: ignore[arg-type]
    a, b = of_the_package(scene, ours), of_the_port(scene, ports)
    for name in a:
        (mean, error), (other, other_error) = mean_and_error(a[name]), mean_and_error(b[name])
        apart = (mean - other) / max(math.hypot(error, other_error), 1e-12)
        values = f"{mean:.4f} +- {1.96 * error:.4f} | {other:.4f} +- {1.96 * other_error:.4f} | {apart:+.1f}"
        print(f"{side} | {rule} | {seeding} | {name} | {values}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:6])
