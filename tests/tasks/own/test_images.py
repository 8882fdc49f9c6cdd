"""Folders of image files: pixels as they were saved, and what is wrong with a file or folder is one line."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.images import luma
from attnprobe.tasks.own import images, pictures
from attnprobe.tasks.own.images import ImageFolder

SIZE = (5, 7)  # rows, columns
EACH = 7  # images of a class


def pixels(seed: int, size: tuple[int, int] = SIZE, *, grey: bool = False) -> np.ndarray:
    shape = size if grey else (*size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, ending: str = "png", **options: Any) -> Path:
    for c, name in enumerate(("bird", "cat")):
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            Image.fromarray(pixels(10 * c + i, **options)).save(folder / name / f"{i}.{ending}")
    return folder


def rows(data: Any) -> dict[bytes, int]:
    """Pixels -> label, of all parts."""
    return {
        x.numpy().tobytes(): int(y) for s in data.splits().values() for x, y in zip(s.inputs, s.labels, strict=True)
    }


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm"])
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_come_back_row_by_row(tmp_path: Path, ending: str, grey: bool) -> None:
    data = ImageFolder(path=write(tmp_path / "p", ending, grey=grey)).load()
    spec = data.spec
    assert (spec.length, spec.channels, spec.levels, spec.grid) == (35, 1 if grey else 3, 256, SIZE)
    assert spec.class_names == ("bird", "cat")
    wanted = {pixels(10 * c + i, grey=grey).tobytes(): c for c in range(2) for i in range(EACH)}
    assert rows(data) == wanted
    train = data.train.inputs.double().flatten(0, 1).numpy()
    np.testing.assert_allclose(spec.mean, train.mean(0))
    np.testing.assert_allclose(spec.std, train.std(0))


def test_grey_values_are_those_of_our_image_tasks(tmp_path: Path) -> None:
    data = ImageFolder(path=write(tmp_path / "p"), colour="grey").load()
    assert rows(data) == {luma(pixels(10 * c + i)).tobytes(): c for c in range(2) for i in range(EACH)}


def test_resizing_averages(tmp_path: Path) -> None:
    """Up to the rounding of rows and of columns one after the other."""
    data = ImageFolder(path=write(tmp_path / "p", size=(6, 4)), size=(3, 2), test_share=0.4).load()
    assert data.spec.grid == (3, 2)
    blocks = [pixels(10 * c + i, (6, 4)).reshape(3, 2, 2, 2, 3) for c in range(2) for i in range(EACH)]
    means = np.stack([block.mean((1, 3)).reshape(6, 3) for block in blocks])
    for resized in data.train.inputs.double().numpy():
        assert np.abs(means - resized).max((1, 2)).min() <= 1


def test_folders_may_name_the_parts(tmp_path: Path) -> None:
    for part, shift in (("train", 0), ("Test", 40)):
        for c, name in enumerate(("a", "b")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                Image.fromarray(pixels(shift + 10 * c + i)).save(tmp_path / part / name / f"{i}.png")
    data = ImageFolder(path=tmp_path, validation_share=0.2).load()
    assert [len(split) for split in data.splits().values()] == [8, 2, 10]
    assert {x.numpy().tobytes() for x in data.test.inputs} == {pixels(40 + 10 * c + i).tobytes() for c in (0, 1)
                                                                for i in range(5)}  # fmt: skip


def test_kinds_of_pixels(tmp_path: Path) -> None:
    """Palettes and transparency become RGB, of 16 bits the upper eight are kept, cameras' turns are made."""
    folder = write(tmp_path / "p")
    Image.fromarray(pixels(90)).quantize(4).save(folder / "cat" / "palette.png")
    Image.fromarray(np.dstack([pixels(91), pixels(92, grey=True)])).save(folder / "cat" / "clear.png")
    deep = pixels(93, grey=True).astype(np.uint16) * 256 + 77
    Image.fromarray(deep).save(folder / "bird" / "deep.png")
    turned = Image.fromarray(pixels(94, SIZE[::-1]))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "bird" / "turned.png", exif=exif)
    found = rows(ImageFolder(path=folder).load())
    assert found[np.repeat(pixels(93, grey=True)[..., None], 3, 2).tobytes()] == 0
    assert found[np.rot90(pixels(94, SIZE[::-1]), -1).tobytes()] == 0
    assert found[pixels(91).tobytes()] == 1
    assert len(found) == 2 * EACH + 4


def refused(path: Path, words: str, **settings: Any) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        ImageFolder(path=path, **settings).load()
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "p")
    Image.fromarray(pixels(0, (9, 4))).save(folder / "cat" / "other.png")
    refused(folder, "images of 2 sizes: most have 5 x 7 pixels, other.png has 9 x 4")
    assert ImageFolder(path=folder, size=(4, 4)).load().spec.length == 16


def test_large_images_need_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_POSITIONS", 34)
    refused(write(tmp_path / "p"), "5 x 7 pixels, which are 35 positions each")
    assert ImageFolder(path=tmp_path / "p", size=SIZE).load().spec.length == 35


def test_damaged_and_strange_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "p")
    (folder / "cat" / "notes.txt").write_text("passed by")
    (folder / "cat" / ".hidden.png").write_text("passed by, too")
    assert "other files passed by: 1" in ImageFolder(path=folder).load().remarks[0]
    whole = (folder / "cat" / "0.png").read_bytes()
    strange = folder / "cat" / "x.png"
    for content in (b"", b"no image", whole[:60]):
        strange.write_bytes(content)
        refused(folder, "x.png (cannot be read|is empty)")
    strange.unlink()
    os.mkfifo(strange)
    refused(folder, "is no regular file")
    strange.unlink()
    strange.symlink_to(tmp_path / "elsewhere.png")
    refused(folder, "is a link that leads out of")
    strange.unlink()
    strange.symlink_to(folder / "cat" / "0.png")
    assert sum(map(len, ImageFolder(path=folder).load().splits().values())) == 2 * EACH + 1
    Image.fromarray(np.ones(SIZE, np.float32)).save(folder / "cat" / "wide.tiff")
    refused(folder, "pixels of 32 bits")
    (folder / "cat" / "wide.tiff").unlink()
    monkeypatch.setattr(pictures, "MOST_PIXELS", 34)
    refused(folder, "has 5 x 7|has 7 x 5 pixels, more than is opened")


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no folders of images")
    (tmp_path / "empty" / "cat").mkdir()
    refused(tmp_path / "empty", "cat holds no images")
    folder = write(tmp_path / "one")
    (folder / "cat").rename(tmp_path / "cat")
    refused(folder, "images of one class only: 'bird'")
    with pytest.raises(ConfigError, match="size"):
        ImageFolder(size=(0, 3))
