"""Pathfinder: do two disks lie on the same dashed contour? Images of 32, 64, 128 (PathX) or 256 (PathX-256) pixels.

Drawn afresh by the published algorithm (``scenes``) or read from the Long Range Arena's files.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ArtifactError
from attnprobe.tasks.data import Data, Outline, Spec, Split
from attnprobe.tasks.derived.pooling import shorten
from attnprobe.tasks.derived.subset import TrainingSubset
from attnprobe.tasks.pathfinder.paddles import Seeding
from attnprobe.tasks.pathfinder.published import read_published
from attnprobe.tasks.pathfinder.scenes import Scene, draw_scenes
from attnprobe.tasks.sources.generated import LARGE, in_blocks, keep, read_kept

BLOCK = 64  # images
VERSION = 2  # raise it when the same settings begin to give other data
SPLITS: tuple[str, ...] = ("train", "validation", "test")

EASY_DISTRACTOR = 2  # paddles in a distractor of the easiest published images, whose contours have 6

# Per image side, as the Long Range Arena documents its data; ``distractor_rule`` says how distractor_paddles is used.
PUBLISHED: dict[int, dict[str, Any]] = {
    32: {
        "padding": 1,
        "seed_distance": 7,
        "paddle_length": 2,
        "paddle_thickness": 0.5,
        "paddle_margins": (1,),
        "marker_radius": 1.5,
        "continuity": 1.0,
        "distractor_paddles": 20,
        "contour_contrasts": (2.0,),
        "paddle_contrasts": (0.75,),
    },
    64: {
        "padding": 1,
        "seed_distance": 12,
        "paddle_length": 5,
        "paddle_thickness": 1.0,
        "paddle_margins": (1,),
        "marker_radius": 2.5,
        "continuity": 1.8,
        "distractor_paddles": 22,
        "contour_contrasts": (0.8,),
        "paddle_contrasts": (1.0,),
    },
    128: {
        "padding": 1,
        "seed_distance": 20,
        "paddle_length": 5,
        "paddle_thickness": 1.5,
        "paddle_margins": (2, 3),
        "marker_radius": 3.0,
        "continuity": 1.8,
        "distractor_paddles": 35,
        "contour_contrasts": (0.9,),
        "paddle_contrasts": (1.0,),
    },
    256: {
        "padding": 22,
        "seed_distance": 27,
        "paddle_length": 5,
        "paddle_thickness": 2.0,
        "paddle_margins": (3,),
        "marker_radius": 5.0,
        "continuity": 1.8,
        "distractor_paddles": 30,
        "contour_contrasts": (1.0,),
        "paddle_contrasts": (1.0,),
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pathfinder(TrainingSubset):
    """Settings that are None have the published value for ``side``; those of the drawing matter to "generate" only.

    The contour lengths of the published difficulties are 6, 9 and 14. When reading, ``n_...`` are upper limits.
    Generated classes are balanced: each pair of neighbouring images has one of each. A larger ``n_...`` begins with
    the images of a smaller one.

    seeding: a bug keeps the published generator from starting contours in most directions at 32 and 64 pixels, so that
    few of the distractors it tries find a place. "published" (the default) does as it does, "clean" starts them in all.

    distractor_rule: how many distractors are tried. The published script (Linsley's ``snakes2_wrapper.py``) divides
    a number of paddles by the length of a distractor once, for the easy images (contours of 6, distractors of 2),
    and then draws those of 9 and 14 paddles with the same number: "once", the default, 10, 11, 17 and 15 at 32, 64,
    128 and 256 pixels. The archive has the folders which that loop writes, and 17 is what users of PathX cite (issue 38
    of the Long Range Arena). The docstrings of its loaders, read for contours of 14, divide by 4: "per_length" gives
    5, 5, 8 and 7. No published image was at hand to decide by. ``distractors`` overrides both.
    """

    side: Literal[32, 64, 128, 256] = 32  # pixels; 128 is PathX, 256 PathX-256
    source: Literal["generate", "published"] = "generate"  # draw images, or read the published folders
    contour_length: int = 14  # paddles
    distractor_length: int | None = None  # paddles; None = a third of contour_length
    distractors: int | None = None  # contours tried besides the two long ones; some find no room
    # how many distractors are tried: paddles divided by the easy length, as the published script does, or by their own
    distractor_rule: Literal["once", "per_length"] = "once"
    # published: contours start in few directions at 32 and 64 pixels, a bug of the published generator; clean: in all
    seeding: Seeding = "published"
    continuity: float | None = None  # larger = straighter
    padding: int | None = None  # pixels at the border in which nothing may lie
    seed_distance: int | None = None  # pixels between the beginnings of the two long contours
    paddle_length: int | None = None  # pixels
    paddle_thickness: float | None = None  # pixels
    paddle_margins: tuple[int, ...] | None = None  # half the gap between paddles, pixels; one is drawn per image
    marker_radius: float | None = None  # pixels
    contour_contrasts: tuple[float, ...] | None = None  # factors of brightness; one is drawn per contour
    paddle_contrasts: tuple[float, ...] | None = None  # factors of brightness; one is drawn per paddle
    antialias_scale: int = 2  # paddles are drawn so many times larger and then averaged
    downsample: int = 1  # the model sees means of downsample x downsample pixels, for short runs
    n_train: int = 160_000  # number of training samples
    n_validation: int = 20_000  # number of validation samples
    n_test: int = 20_000  # number of test samples
    data_seed: int = 0  # of the drawn data; apart from the seed of the run

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.side in PUBLISHED, "side", f"must be 32, 64, 128 or 256, got {self.side}")
        require_positive(self, "n_train", "n_validation", "n_test")
        rule = self.distractor_rule in ("once", "per_length")
        require(rule, "distractor_rule", f"must be 'once' or 'per_length', got {self.distractor_rule!r}")
        require(self.data_seed >= 0, "data_seed", f"must not be negative, got {self.data_seed}")
        require(self.downsample > 0 and self.side % self.downsample == 0, "downsample", "must divide side")
        self.scene()

    def scene(self) -> Scene:
        """What is drawn, with every setting filled in."""
        published = dict(PUBLISHED[self.side])
        third = max(1, self.contour_length // 3)
        published["distractor_length"] = length = third if self.distractor_length is None else self.distractor_length
        divisor = EASY_DISTRACTOR if self.distractor_rule == "once" else max(1, length)
        published["distractors"] = published.pop("distractor_paddles") // divisor
        chosen = {f.name: getattr(self, f.name) for f in dataclasses.fields(Scene)}
        return Scene(**{name: published[name] if value is None else value for name, value in chosen.items()})

    def load(self, data_dir: Path | None = None) -> Data:
        sizes = dict(zip(SPLITS, (self.n_train, self.n_validation, self.n_test), strict=True))
        if self.source == "published":
            arrays = read_published(self.side, self.contour_length, sizes, data_dir)
        else:
            arrays = {name: self._generated(name, size) for name, size in sizes.items()}
        train, validation, test = (self._split(*arrays[name]) for name in SPLITS)
        return self.apply(Data(spec=self._spec(), train=train, validation=validation, test=test))

    def outline(self) -> Outline | None:
        if self.source == "published":
            return None
        return self._outline(self._spec(), self.n_train, self.n_validation, self.n_test)

    def _spec(self) -> Spec:
        seen = self.side // self.downsample
        normal = (127.5,)  # mean and half range of bytes: the model sees -1 .. 1
        return Spec(length=seen**2, classes=2, levels=256, mean=normal, std=normal, grid=(seen, seen))

    def _generated(self, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, side, side) and classes (n,) of one split, from a file if they are many."""
        source = Stream(scene=self.scene(), seed=self.data_seed, split=SPLITS.index(split))
        if n < LARGE:
            return collect(source, n)
        settings = dataclasses.asdict(source) | {"n": n, "version": VERSION}
        folder = keep(f"pathfinder-{self.side}-{split}", settings, lambda path: save(path, source, n))
        images, labels = read_kept(folder, "images"), read_kept(folder, "labels")
        if images.shape != (n, self.side, self.side) or labels.shape != (n,):
            raise ArtifactError(f"{folder} is damaged: arrays of another shape", hint="delete it")
        return images, labels

    def _split(self, images: np.ndarray, labels: np.ndarray) -> Split:
        images = shorten(images, self.downsample, axes=(1, 2))
        inputs = torch.from_numpy(images.reshape(len(images), -1, 1))
        return Split(inputs=inputs, labels=torch.from_numpy(labels.astype(np.int64)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """An endless, fixed sequence of images, cut into blocks."""

    scene: Scene
    seed: int
    split: int


def draw_block(stream: Stream, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (BLOCK, side, side) and classes (BLOCK,)."""
    generator = np.random.default_rng(np.random.SeedSequence(stream.seed, spawn_key=(stream.split, block)))
    labels = generator.permuted(np.tile([0, 1], (BLOCK // 2, 1)), axis=1).ravel()
    return draw_scenes(stream.scene, labels, generator), labels.astype(np.uint8)


def collect(stream: Stream, n: int) -> tuple[np.ndarray, np.ndarray]:
    parts = in_blocks(draw_block, stream, range(-(-n // BLOCK)), workers=1)
    images, labels = (np.concatenate(part)[:n] for part in zip(*parts, strict=True))
    return images, labels


def save(folder: Path, stream: Stream, n: int) -> None:
    """images.npy and labels.npy, written block by block: there may be more images than memory holds."""
    side = stream.scene.side
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, side, side))
    labels = np.zeros(n, np.uint8)
    for block, (drawn, classes) in enumerate(in_blocks(draw_block, stream, range(-(-n // BLOCK)))):
        start = block * BLOCK
        images[start : start + BLOCK] = drawn[: n - start]
        labels[start : start + BLOCK] = classes[: n - start]
    images.flush()
    np.save(folder / "labels.npy", labels)
