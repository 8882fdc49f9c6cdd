"""CIFAR-10 as sequences of pixels, from the original files: grey (the LRA's Image task) and in colour (sCIFAR).

Krizhevsky 2009; grey values, constants and splits as in Amos et al. 2023 and its predecessor S4 (Gu et al. 2022).
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.pooling import require_side, shorten
from attnprobe.tasks.derived.subset import Subset
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from attnprobe.tasks.sources.copies import find
from attnprobe.tasks.sources.pickles import read_batch

SIDE, CLASSES = 32, 10
PER_BATCH, TRAIN_BATCHES = 10_000, 5
N_VALIDATION = 5_000
SPLIT_SEED = 42
HINT = "run `attnprobe data verify image`, then get the file again"

GREY_MEAN, GREY_STD = (122.6,), (61.0,)
COLOUR_MEAN = tuple(255 * m for m in (0.4914, 0.4822, 0.4465))
COLOUR_STD = tuple(255 * s for s in (0.247, 0.243, 0.261))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CIFAR(Subset):
    side: int = SIDE  # 32, or a divisor of it: images are average-pooled and rounded back to whole levels

    def __post_init__(self) -> None:
        super().__post_init__()
        require_side(self.side, SIDE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image(_CIFAR):
    """Grey CIFAR-10: 1024 pixels, row by row."""

    def load(self, data_dir: Path | None = None) -> Data:
        return self.apply(load_cifar(data_dir, grey=True, side=self.side))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequentialCIFAR(_CIFAR):
    """CIFAR-10 in colour: 1024 pixels of three channels, row by row."""

    def load(self, data_dir: Path | None = None) -> Data:
        return self.apply(load_cifar(data_dir, grey=False, side=self.side))


def load_cifar(data_dir: Path | None, *, grey: bool, side: int) -> Data:
    """All 45 000 training, 5 000 validation and 10 000 test images; the constants are those of 32 x 32 pixels."""
    source, folder = find(TASK_SOURCES["image"], data_dir)
    read = read_pickled if source == "cifar-10-python" else read_binary
    ending = "" if source == "cifar-10-python" else ".bin"
    batches = [read(folder / f"data_batch_{i}{ending}") for i in range(1, TRAIN_BATCHES + 1)]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    # torch's random_split with a generator of seed 42: one permutation, cut in two
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    chosen, held_out = order[: len(order) - N_VALIDATION], order[len(order) - N_VALIDATION :]
    train = make_split(images[chosen], labels[chosen], grey=grey, side=side)
    spec = Spec(
        length=side**2,
        classes=CLASSES,
        channels=1 if grey else 3,
        levels=256,
        mean=GREY_MEAN if grey else COLOUR_MEAN,
        std=GREY_STD if grey else COLOUR_STD,
        grid=(side, side),
    )
    return Data(
        spec=spec,
        train=train,
        validation=make_split(images[held_out], labels[held_out], grey=grey, side=side),
        test=make_split(*read(folder / f"test_batch{ending}"), grey=grey, side=side),
    )


def make_split(images: np.ndarray, labels: np.ndarray, *, grey: bool, side: int) -> Split:
    """Planar images (n, 3072), all red, then all green, then all blue -> (n, side * side, 1 or 3)."""
    pixels = images.reshape(len(images), 3, SIDE**2).transpose(0, 2, 1)
    values = luma(pixels)[..., None] if grey else np.ascontiguousarray(pixels)
    values = shorten(values.reshape(len(values), SIDE, SIDE, -1), SIDE // side, axes=(1, 2))
    values = values.reshape(len(values), side**2, -1)
    return Split(inputs=torch.from_numpy(values), labels=torch.from_numpy(labels.astype(np.int64)))


def luma(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601 grey values (...,) uint8 of (..., 3) uint8: 0.299 R + 0.587 G + 0.114 B, in 16-bit fixed point.

    The weights are rounded to multiples of 2^-16 and the sum to the nearest integer, which is what image libraries do.
    """
    total = np.full(pixels.shape[:-1], 1 << 15, np.uint32)
    for channel, weight in enumerate((19595, 38470, 7471)):
        total += np.multiply(pixels[..., channel], weight, dtype=np.uint32)
    return (total >> 16).astype(np.uint8)


def read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One batch of the binary version: for every image a label byte and 3072 pixel bytes."""
    record = 1 + 3 * SIDE**2
    with reading(path, HINT):
        content = np.frombuffer(read_bytes(path, PER_BATCH * record), np.uint8)
    if len(content) != PER_BATCH * record:
        found = f"{path} has {len(content)} bytes, expected {PER_BATCH} images of {record} bytes each"
        raise ArtifactError(found, hint=HINT)
    rows = content.reshape(PER_BATCH, record)
    return rows[:, 1:], checked_labels(rows[:, 0], path)


def read_pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One batch of the Python version."""
    images, labels = read_batch(read_bytes(path, 2 * PER_BATCH * 3 * SIDE**2), str(path))
    if images.shape != (PER_BATCH, 3 * SIDE**2) or len(labels) != PER_BATCH:
        found = f"images of shape {images.shape} and {len(labels)} labels"
        raise ArtifactError(f"{path} holds {found}, expected {PER_BATCH} images of {3 * SIDE**2} bytes", hint=HINT)
    return images, checked_labels(labels, path)


def checked_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    if labels.max() >= CLASSES:
        raise ArtifactError(f"{path} has a label {labels.max()}, expected 0 to {CLASSES - 1}", hint=HINT)
    return labels


def read_bytes(path: Path, limit: int) -> bytes:
    """At most one byte more than ``limit``: enough to notice a file that is too long."""
    with reading(path, HINT), path.open("rb") as file:
        return file.read(limit + 1)
