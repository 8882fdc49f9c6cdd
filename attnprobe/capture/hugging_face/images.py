"""Images as a Hugging Face model sees them, by the image processor of its folder."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import ArtifactError
from attnprobe.models.hugging_face.loading import library, place_of, told
from attnprobe.tasks.own.pictures import ENDINGS, inside, opened

AT_ONCE = 64  # images that are prepared together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    pixels: Tensor  # (image, channel, height, width)
    labels: np.ndarray | None  # (image,) classes by folder; None where there are no folders
    classes: tuple[str, ...]  # names of the folders


def read_images(
    folder: Path, source: str, *, limit: int | None = None, download: bool = False, permission: str = ""
) -> Images:
    """Image files of a folder, or of its folders, one for each class; source: of the model. Sorted by name."""
    files, labels, classes = list_images(folder)
    if limit is not None and limit < len(files):  # of all classes, for they are sorted by them
        chosen = np.linspace(0, len(files) - 1, limit).round().astype(int)
        files, labels = [files[i] for i in chosen], None if labels is None else labels[chosen]
    with told(source, download, permission, "is there a preprocessor_config.json?"):
        processor = library().AutoImageProcessor.from_pretrained(**place_of(source, download))
    parts = [_prepared(processor, files[i : i + AT_ONCE]) for i in range(0, len(files), AT_ONCE)]
    if len({part.shape[1:] for part in parts}) > 1:
        raise ArtifactError(f"{folder}: images differ in size after the model's own preparation", hint="resize them")
    return Images(pixels=torch.cat(parts), labels=labels, classes=classes)


def _prepared(processor: Any, files: list[Path]) -> Tensor:
    images = []
    for file in files:
        with opened(file) as image:
            images.append(image.convert("RGB"))
    return processor(images=images, return_tensors="pt")["pixel_values"]


def list_images(folder: Path) -> tuple[list[Path], np.ndarray | None, tuple[str, ...]]:
    """Files, classes of them and the names of these, where there are several folders and nothing beside them."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder", hint="give a folder of images, or of folders of images")
    folders, own = inside(folder)
    classes = [[file for file in inside(place)[1] if file.suffix.lower() in ENDINGS] for place in folders]
    plain = [file for file in own if file.suffix.lower() in ENDINGS]
    files = plain + [file for found in classes for file in found]
    if not files:
        raise ArtifactError(f"{folder} holds no images", hint=f"known are {', '.join(ENDINGS)}")
    if plain or sum(map(bool, classes)) < 2:
        return files, None, ()
    known = [(place.name, len(found)) for place, found in zip(folders, classes, strict=True) if found]
    names, counts = zip(*known, strict=True)
    return files, np.repeat(np.arange(len(names)), counts), names
