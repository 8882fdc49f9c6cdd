"""The Pathfinder images of the Long Range Arena: PNG files listed, with their classes, in numbered metadata files.

A row of metadata holds: folder, file name, number, class, and settings that are not used. The archive's metadata are
plain text under the name ``.npy``; those of the generator are real NumPy arrays of strings. Both are read.
"""

import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from attnprobe.config import require
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.sources.catalogue import PATHFINDER_FOLDERS
from attnprobe.tasks.sources.copies import find

KNOWN_EMPTY = ("pathfinder32", "curv_baseline", "imgs/0", "sample_172.png")  # in the published archive
SPLIT_SEED = 42
HELD_OUT = 0.1  # for validation, and again for testing
HINT = "was the archive unpacked completely? see `attnprobe data verify pathfinder`"
NUMPY_MAGIC = b"\x93NUMPY"


def read_published(
    side: int, contour_length: int, sizes: dict[str, int], data_dir: Path | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, side, side) uint8 and classes (n,) of the splits named in ``sizes``, at most so many of each.

    The split is that of Gu et al. (S4) and Amos et al.: PyTorch's random_split with seed 42, 80 / 10 / 10 %.
    """
    name = PATHFINDER_FOLDERS.get(contour_length, "")
    require(bool(name), "contour_length", f"must be 6, 9 or 14 for published images, got {contour_length}")
    folder = find_folder(side, name, data_dir)
    rows = [row for row in read_metadata(folder / "metadata") if not is_known_empty(side, folder, row)]
    held_out = int(HELD_OUT * len(rows))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    bounds = np.cumsum([0, len(rows) - 2 * held_out, held_out, held_out])
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for (split, size), start, stop in zip(sizes.items(), bounds, bounds[1:], strict=False):
        chosen = [rows[i] for i in order[start:stop][:size]]
        if not chosen:
            raise ArtifactError(
                f"{folder} lists {len(rows)} images, too few for three splits",
                hint=HINT,
            )
        images = np.stack([read_image(folder / where / file, side) for where, file, _ in chosen])
        splits[split] = images, np.array([label for _, _, label in chosen], np.uint8)
    return splits


def find_folder(side: int, difficulty: str, data_dir: Path | None) -> Path:
    _, folder = find((f"pathfinder{side}",), data_dir, markers=(f"{difficulty}/metadata",))
    return folder / difficulty


def is_known_empty(side: int, folder: Path, row: tuple[str, str, int]) -> bool:
    where, file, _ = row
    path = folder / where / file
    return (f"pathfinder{side}", folder.name, where, file) == KNOWN_EMPTY and path.is_file() and not path.stat().st_size


def read_metadata(folder: Path) -> list[tuple[str, str, int]]:
    """(folder, file name, class) of all images, in the order of the metadata files' numbers and their rows."""
    files = [path for path in folder.glob("*.npy") if path.stem.isdecimal()]
    if not files:
        raise ArtifactError(
            f"{folder} holds no metadata files such as 0.npy",
            hint=HINT,
        )
    return [row for path in sorted(files, key=lambda p: int(p.stem)) for row in read_rows(path)]


def read_rows(path: Path) -> list[tuple[str, str, int]]:
    with reading(path):
        content = path.read_bytes()
        if content.startswith(NUMPY_MAGIC):
            texts = np.ascontiguousarray(np.load(io.BytesIO(content), allow_pickle=False).astype(str))
            if texts.view(np.uint32).max(initial=0) > sys.maxunicode:  # numpy would make texts that crash Python
                raise ValueError("a text holds what is no character")
            table: Sequence[Sequence[str]] = texts.tolist()
        else:
            table = [line.split() for line in content.decode("utf-8").splitlines() if line.strip()]
    if not table:
        raise ArtifactError(f"{path} lists no images", hint="it may be cut short: unpack the archive again")
    for number, row in enumerate(table, 1):
        if not isinstance(row, list) or len(row) < 4 or row[3] not in ("0", "1"):
            raise ArtifactError(
                f"{path}, row {number} does not give a folder, a file, a number and a class 0 or 1",
                hint=HINT,
            )
        named = PurePosixPath(row[0], row[1])
        if named.is_absolute() or ".." in named.parts:
            raise ArtifactError(
                f"{path}, row {number} names a file outside the data: {named}",
                hint=HINT,
            )
    return [(row[0], row[1], int(row[3])) for row in table]


def read_image(path: Path, side: int) -> np.ndarray:
    """Pixels (side, side) uint8; what the header says is checked before anything is decoded."""
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below, in our words
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode != "L" or image.size != (side, side):
                found = f"a {image.mode} image of {image.width} x {image.height} pixels"
                raise ArtifactError(
                    f"{path} is {found}, expected {side} x {side} grey",
                    hint=HINT,
                )
            return np.asarray(image)
