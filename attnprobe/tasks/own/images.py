"""Images of a person's own: in folders or tables, pixels row by row as sequences on a grid."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.tasks.data import Data, Spec
from attnprobe.tasks.own.pictures import DEEP_MODES, Picture, pictures, read_header, read_pixels
from attnprobe.tasks.own.source import OwnData, make_splits, require_memory
from attnprobe.tasks.own.values import described

GREY_MODES = ("1", "L", "LA", *DEEP_MODES)
MOST_POSITIONS = 4096  # of a sequence whose size nobody chose
SIZE_HINT = "choose one for all: -s 'task.size=[32,32]' (height, width)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(OwnData):
    """Image files in a folder for each class, perhaps below folders train, validation and test; or a column of images
    in a Parquet or Arrow file or a folder saved by the library ``datasets``.
    """

    size: tuple[int, int] | None = None  # height and width that images are resized to; None = as they are, all alike
    colour: Literal["auto", "grey", "rgb"] = "auto"  # auto: grey if all files are; grey: 0.299 R + 0.587 G + 0.114 B
    column: str | None = None  # of images, in a table; None = image or img
    label: str = "label"  # the column of classes, in a table

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size is None or min(self.size) > 0, "size", f"must be above zero, got {list(self.size or ())}")

    def load(self, data_dir: Path | None = None) -> Data:
        path = self.located(data_dir)
        found = pictures(path, self.column, self.label)
        parts = self.divided(path, found.labels, found.parts)
        sizes, channels = self._headers(found.images)
        grid = self.size or self._common(path, sizes, found.images)
        require_memory(path, 3 * len(sizes) * grid[0] * grid[1] * channels)
        pixels = np.stack([read_pixels(image, grid, channels) for image in found.images])
        facts = described(path, pixels, None, parts["train"])
        spec = Spec(length=grid[0] * grid[1], classes=len(found.classes), grid=grid, class_names=found.classes, **facts)
        resized = sum(size != grid for size in sizes)
        remarks = [
            f"images: {len(sizes)} of {len(found.classes)} classes, {'grey' if channels == 1 else 'RGB'}; "
            f"resized to {grid[0]} x {grid[1]}: {resized}; other files passed by: {found.passed_by}",
            f"split: {'as the data say' if found.parts else f'drawn by task.data_seed={self.data_seed}'}",
        ]
        return self.assembled(spec, make_splits(pixels, found.labels, None, parts), remarks, {})

    def _headers(self, images: Sequence[Picture]) -> tuple[list[tuple[int, int]], int]:
        """Height and width of all files, and the number of channels; nothing is decoded."""
        headers = [read_header(image) for image in images]
        all_grey = all(mode in GREY_MODES for _, mode in headers)
        return [size for size, _ in headers], 1 if self.colour == "grey" or (self.colour == "auto" and all_grey) else 3

    def _common(self, path: Path, sizes: list[tuple[int, int]], images: Sequence[Picture]) -> tuple[int, int]:
        (height, width), _ = Counter(sizes).most_common(1)[0]
        other = next((i for i, size in enumerate(sizes) if size != (height, width)), None)
        if other is not None:
            message = f"{path} holds images of {len(set(sizes))} sizes: most have {height} x {width} pixels"
            raise ArtifactError(
                f"{message}, {images[other].name.name} has {sizes[other][0]} x {sizes[other][1]}", hint=SIZE_HINT
            )
        if height * width > MOST_POSITIONS:
            message = f"{path} holds images of {height} x {width} pixels, which are {height * width:,} positions each"
            raise ArtifactError(message, hint=f"{SIZE_HINT}; the size they have is possible, too, if it is named")
        return height, width
