"""Image files of a person's own: a folder for each class, pixels row by row as sequences on a grid."""

import dataclasses
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from attnprobe.config import require
from attnprobe.errors import ArtifactError, one_line
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec
from attnprobe.tasks.own.source import OwnData, make_splits, require_file, require_memory
from attnprobe.tasks.own.splits import PART_OF
from attnprobe.tasks.own.values import described
from attnprobe.tasks.sources.copies import require_inside

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
           "WEBP": (".webp",), "PPM": (".ppm", ".pgm", ".pbm")}  # fmt: skip
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", *DEEP_MODES)
WIDE_MODES = ("I", "F")
ORIENTATION = 0x0112  # the number of an EXIF entry
MOST_PIXELS = 1 << 26  # of one file
MOST_POSITIONS = 4096  # of a sequence whose size nobody chose
LAYOUT = "expected FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE with perhaps FOLDER/validation and FOLDER/test"
SIZE_HINT = "choose one for all: -s 'task.size=[32,32]' (height, width)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(OwnData):
    """Image files in a folder for each class, perhaps below folders train, validation and test."""

    size: tuple[int, int] | None = None  # height and width that images are resized to; None = as they are, all alike
    colour: Literal["auto", "grey", "rgb"] = "auto"  # auto: grey if all files are; grey: 0.299 R + 0.587 G + 0.114 B

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size is None or min(self.size) > 0, "size", f"must be above zero, got {list(self.size or ())}")

    def load(self, data_dir: Path | None = None) -> Data:
        path = self.located(data_dir)
        files, passed_by = list_images(path)
        classes = sorted({file.parent.name for _, file in files})
        if len(classes) < 2:
            message = f"{path} holds images of one class only: {classes[0]!r}"
            raise ArtifactError(message, hint=f"a classifier needs at least two; {LAYOUT}")
        labels = np.array([classes.index(file.parent.name) for _, file in files], np.int64)
        named = [part for part, _ in files if part is not None]
        parts = self.divided(path, labels, named or None)
        paths = [file for _, file in files]
        sizes, channels = self._headers(paths)
        grid = self.size or self._common(path, sizes, paths)
        require_memory(path, 3 * len(paths) * grid[0] * grid[1] * channels)
        pixels = np.stack([read_pixels(file, grid, channels) for file in paths])
        facts = described(path, pixels, None, parts["train"])
        spec = Spec(
            length=grid[0] * grid[1],
            classes=len(classes),
            grid=grid,
            class_names=tuple(map(one_line, classes)),
            **facts,
        )
        resized = sum(size != grid for size in sizes)
        remarks = [
            f"images: {len(paths)} files of {len(classes)} classes, {'grey' if channels == 1 else 'RGB'}; "
            f"resized to {grid[0]} x {grid[1]}: {resized}; other files passed by: {passed_by}",
            f"split: {'by folders' if named else f'drawn by task.data_seed={self.data_seed}'}",
        ]
        return self.assembled(spec, make_splits(pixels, labels, None, parts), remarks, {})

    def _headers(self, paths: Sequence[Path]) -> tuple[list[tuple[int, int]], int]:
        """Height and width of all files, and the number of channels; nothing is decoded."""
        headers = [read_header(path) for path in paths]
        all_grey = all(mode in GREY_MODES for _, mode in headers)
        return [size for size, _ in headers], 1 if self.colour == "grey" or (self.colour == "auto" and all_grey) else 3

    def _common(self, path: Path, sizes: list[tuple[int, int]], paths: Sequence[Path]) -> tuple[int, int]:
        (height, width), _ = Counter(sizes).most_common(1)[0]
        other = next((i for i, size in enumerate(sizes) if size != (height, width)), None)
        if other is not None:
            message = f"{path} holds images of {len(set(sizes))} sizes: most have {height} x {width} pixels"
            raise ArtifactError(
                f"{message}, {paths[other].name} has {sizes[other][0]} x {sizes[other][1]}", hint=SIZE_HINT
            )
        if height * width > MOST_POSITIONS:
            message = f"{path} holds images of {height} x {width} pixels, which are {height * width:,} positions each"
            raise ArtifactError(message, hint=f"{SIZE_HINT}; the size they have is possible, too, if it is named")
        return height, width


def list_images(folder: Path) -> tuple[list[tuple[str | None, Path]], int]:
    """Image files class by class and by name, each with its part if folders say it; and how many others there are."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder", hint=LAYOUT)
    above, _ = inside(folder)
    places: list[tuple[str | None, Path]] = [(None, place) for place in above]
    if above and all(place.name.lower() in PART_OF for place in above):
        places = [(part.name, place) for part in above for place in inside(part)[0]]
    files: list[tuple[str | None, Path]] = []
    passed_by = 0
    for part, place in places:
        found = inside(place)[1]
        images = [file for file in found if file.suffix.lower() in ENDINGS]
        passed_by += len(found) - len(images)
        if not images:
            raise ArtifactError(f"{place} holds no images", hint=f"known are {', '.join(ENDINGS)}; {LAYOUT}")
        files += [(part, file) for file in images]
    if not files:
        raise ArtifactError(f"{folder} holds no folders of images", hint=LAYOUT)
    return files, passed_by


def inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and all else in a folder, by name, without hidden ones; no link may lead out of the folder."""
    with reading(folder, hint="check the folder's name and rights"), os.scandir(folder) as entries:
        found = sorted((e.name, e.is_symlink(), e.is_dir()) for e in entries if not e.name.startswith("."))
    for name, is_link, _ in found:
        if is_link:
            require_inside(folder / name, folder)
    folders = [folder / name for name, _, is_folder in found if is_folder]
    return folders, [folder / name for name, _, is_folder in found if not is_folder]


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet; whatever is wrong with the file is one ArtifactError."""
    with reading(path, hint="open it in a viewer; leave it out if it is damaged"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below, in our words
        require_file(path)
        with Image.open(path, formats=list(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS:
                found = f"{image.width} x {image.height} pixels"
                raise ArtifactError(f"{path} has {found}, more than is opened", hint="make it smaller, or leave it out")
            yield image


def read_header(path: Path) -> tuple[tuple[int, int], str]:
    """Height and width as the image is to be looked at, and Pillow's name of its kind of pixels."""
    with opened(path) as image:
        if image.mode in WIDE_MODES:
            raise ArtifactError(f"{path} has pixels of 32 bits", hint="save it with 8 or 16 bits")
        turned = image.getexif().get(ORIENTATION, 1) >= 5  # lies on its side
        return (image.width, image.height) if turned else (image.height, image.width), image.mode


def read_pixels(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """(height * width, channels) uint8."""
    with opened(path) as stored:
        image = ImageOps.exif_transpose(stored)
        if image.mode in DEEP_MODES:  # of 16 bits the upper ones; Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BOX)  # means of the pixels that are joined
        return np.asarray(image).reshape(-1, channels)
