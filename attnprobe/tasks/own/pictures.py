"""Where a person's images come from: files in a folder for each class, or a column of a table or saved data set."""

import dataclasses
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from attnprobe.errors import ArtifactError, one_line, shown
from attnprobe.files import reading
from attnprobe.tasks.own.columns import choice, holds_data_set, read_columns, setting
from attnprobe.tasks.own.labels import classes_of
from attnprobe.tasks.own.source import require_file
from attnprobe.tasks.own.splits import PART_OF
from attnprobe.tasks.sources.copies import require_inside

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
           "WEBP": (".webp",), "PPM": (".ppm", ".pgm", ".pbm")}  # fmt: skip
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
WIDE_MODES = ("I", "F")
ORIENTATION = 0x0112  # the number of an EXIF entry
MOST_PIXELS = 1 << 26  # of one file
LAYOUT = "expected FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE with perhaps FOLDER/validation and FOLDER/test"
USUAL_IMAGES, SPLIT = ("image", "img"), "split"  # names of columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    name: Path  # of its file, or of its row in a table
    content: bytes | None = None  # where it is no file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """All images of a person with their classes."""

    images: list[Picture]
    labels: np.ndarray  # (image,) int64
    classes: tuple[str, ...]
    parts: list[Any] | None  # train, validation or test of every image, if the data say it
    passed_by: int  # files that are no images


def pictures(path: Path, column: str | None, label: str) -> Pictures:
    """Of a folder, or of these columns. ArtifactError unless there are images of at least two classes."""
    return _of_columns(path, column, label) if holds_data_set(path) else _of_folders(path)


def _of_columns(path: Path, column: str | None, label: str) -> Pictures:
    def choose(names: Sequence[str]) -> list[str]:
        usual = [name for name in USUAL_IMAGES if name in names]
        wanted = choice(path, names, column or (usual[0] if usual else USUAL_IMAGES[0]), setting("column"))
        splitting = [SPLIT] if SPLIT in names and label != SPLIT else []
        return [wanted, *splitting, choice(path, names, label, setting("label"))]

    table = read_columns(path, choose, separator=None, quotes=True)
    rows, *splitting, labels = table.values.values()
    images = [
        Picture(name=Path(f"{path}, row {n}"), content=_content(path, n, value)) for n, value in enumerate(rows, 1)
    ]
    numbers, classes = classes_of(path, f"labels {label!r}", labels, table.class_names)
    parts = splitting[0] if splitting else table.parts
    return Pictures(images=images, labels=numbers, classes=classes, parts=parts, passed_by=0)


def _content(path: Path, row: int, value: Any) -> bytes:
    """Of an image as ``datasets`` stores it, or of plain bytes."""
    found = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(found, bytes):
        return found
    if isinstance(value, dict) and value.get("path") is not None:
        reason = f"{path}, row {row} holds no image, only the path of one: {shown(value['path'])}"
        raise ArtifactError(reason, hint="save the images themselves with it: datasets' save_to_disk does")
    reason = f"{path}, row {row} holds {shown(value)}, which is no image"
    raise ArtifactError(reason, hint="choose the column of images: -s task.column=NAME")


def _of_folders(path: Path) -> Pictures:
    files, passed_by = list_images(path)
    classes = sorted({file.parent.name for _, file in files})
    if len(classes) < 2:
        message = f"{path} holds images of one class only: {classes[0]!r}"
        raise ArtifactError(message, hint=f"a classifier needs at least two; {LAYOUT}")
    labels = np.array([classes.index(file.parent.name) for _, file in files], np.int64)
    return Pictures(
        images=[Picture(name=file) for _, file in files],
        labels=labels,
        classes=tuple(map(one_line, classes)),
        parts=[part for part, _ in files if part is not None] or None,
        passed_by=passed_by,
    )


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
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet, of a file or of bytes; whatever is wrong is one ArtifactError."""
    with reading(path, hint="open it in a viewer; leave it out if it is damaged"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below, in our words
        if content is None:
            require_file(path)
        with Image.open(path if content is None else io.BytesIO(content), formats=list(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS:
                found = f"{image.width} x {image.height} pixels"
                raise ArtifactError(f"{path} has {found}, more than is opened", hint="make it smaller, or leave it out")
            yield image


def read_header(picture: Picture) -> tuple[tuple[int, int], str]:
    """Height and width as the image is to be looked at, and Pillow's name of its kind of pixels."""
    with opened(picture.name, picture.content) as image:
        if image.mode in WIDE_MODES:
            raise ArtifactError(f"{picture.name} has pixels of 32 bits", hint="save it with 8 or 16 bits")
        turned = image.getexif().get(ORIENTATION, 1) >= 5  # lies on its side
        return (image.width, image.height) if turned else (image.height, image.width), image.mode


def read_pixels(picture: Picture, size: tuple[int, int], channels: int) -> np.ndarray:
    """(height * width, channels) uint8."""
    with opened(picture.name, picture.content) as stored:
        image = ImageOps.exif_transpose(stored)
        if image.mode in DEEP_MODES:  # of 16 bits the upper ones; Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BOX)  # means of the pixels that are joined
        return np.asarray(image).reshape(-1, channels)
