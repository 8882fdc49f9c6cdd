"""The layout of the benchmark's archive, with text or NumPy metadata."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.pathfinder.published import read_rows
from attnprobe.tasks.pathfinder.task import Pathfinder

N, PER_FILE = 60, 6
TASK = Pathfinder(source="published")


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32), np.uint8)


def label(number: int) -> int:
    return number * number % 3 % 2


def rows_of(k: int) -> list[list[str]]:
    numbers = range(k * PER_FILE, (k + 1) * PER_FILE)
    return [[f"imgs/{k}", f"sample_{i % PER_FILE}.png", str(i % PER_FILE), str(label(i)), "1.0", "14"] for i in numbers]


def write_text(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join(" ".join(row) + "\n" for row in rows))


def write_array(path: Path, rows: list[list[str]]) -> None:
    np.save(path, np.array(rows))


def write_bytes_array(path: Path, rows: list[list[str]]) -> None:  # as Python 2 saved them
    np.save(path, np.array(rows, dtype="S"))


def make_archive(root: Path, write: Callable[[Path, list[list[str]]], None] = write_text) -> Path:
    folder = root / "pathfinder32" / "curv_contour_length_14"
    (folder / "metadata").mkdir(parents=True)
    for k in range(N // PER_FILE):
        (folder / "imgs" / str(k)).mkdir(parents=True)
        write(folder / "metadata" / f"{k}.npy", rows_of(k))
        for i in range(PER_FILE):
            Image.fromarray(pixels(k * PER_FILE + i)).save(folder / "imgs" / str(k) / f"sample_{i}.png")
    return folder


@pytest.mark.parametrize("write", [write_text, write_array, write_bytes_array])
def test_images_and_the_published_split(tmp_path: Path, write: Callable[[Path, list[list[str]]], None]) -> None:
    make_archive(tmp_path, write)
    data = TASK.load(tmp_path)
    dataset = torch.utils.data.TensorDataset(torch.arange(N))
    generator = torch.Generator().manual_seed(42)
    expected = torch.utils.data.random_split(dataset, [48, 6, 6], generator=generator)  # pyright: ignore
    for split, indices in zip(data.splits().values(), expected, strict=True):
        assert len(split) == len(indices)
        for inputs, found, (number,) in zip(split.inputs, split.labels, indices, strict=True):
            assert np.array_equal(inputs.reshape(32, 32).numpy(), pixels(int(number)))
            assert found == label(int(number))


def test_limits_give_prefixes(tmp_path: Path) -> None:
    make_archive(tmp_path)
    whole, part = TASK.load(tmp_path), Pathfinder(source="published", n_train=5, n_test=2).load(tmp_path)
    assert torch.equal(part.train.inputs, whole.train.inputs[:5])
    assert torch.equal(part.test.inputs, whole.test.inputs[:2])
    assert len(part.validation) == 6


def test_missing_archive_and_unpublished_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"for curv_contour_length_14/metadata$"):
        TASK.load()
    with pytest.raises(ConfigError, match="contour_length must be 6, 9 or 14"):
        Pathfinder(source="published", contour_length=7).load(tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def resize(path: Path) -> None:
    Image.fromarray(np.zeros((16, 32), np.uint8)).save(path)


def colour(path: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)


def enlarge(side: int) -> Callable[[Path], None]:
    """A header that promises side x side pixels, without them."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "does not exist"),
        (cut_short, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"no image at all"), "cannot be read"),
        (enlarge(12_000), "12000 x 12000 pixels, expected 32 x 32"),
        (enlarge(40_000), "cannot be read: .* exceeds limit"),
        (resize, "32 x 16 pixels, expected 32 x 32"),
        (colour, "is a RGB image"),
    ],
)
def test_damaged_images_are_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = make_archive(tmp_path)
    damage(folder / "imgs" / "3" / "sample_4.png")
    with pytest.raises(ArtifactError, match=message) as error:
        TASK.load(tmp_path)
    assert "sample_4.png" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"imgs/0 sample_0.png 0\n",
        b"imgs/0 sample_0.png 0 2\n",
        b"\x93NUMPY\x01\x00garbage",
        b"\xff\xfe\x00broken",
        b"",
        b"\n \n",
    ],
)
def test_damaged_metadata_are_named(tmp_path: Path, content: bytes) -> None:
    folder = make_archive(tmp_path)
    (folder / "metadata" / "2.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"2\.npy") as error:
        TASK.load(tmp_path)
    assert "\n" not in str(error.value)


def test_names_that_only_look_like_numbers_are_left_alone(tmp_path: Path) -> None:
    folder = make_archive(tmp_path)
    before = TASK.load(tmp_path).fingerprint()
    (folder / "metadata" / "\u00b2.npy").write_bytes(b"foreign")
    assert TASK.load(tmp_path).fingerprint() == before


def test_an_empty_array_of_metadata_is_refused(tmp_path: Path) -> None:
    folder = make_archive(tmp_path)
    np.save(folder / "metadata" / "2.npy", np.zeros((0, 11), "U20"))
    with pytest.raises(ArtifactError, match=r"2\.npy lists no images"):
        TASK.load(tmp_path)


@pytest.mark.parametrize("where", ["../../secret", "imgs/../../..", "/etc"])
@pytest.mark.parametrize("write", [write_text, write_array])
def test_metadata_cannot_lead_outside_the_data(
    tmp_path: Path, where: str, write: Callable[[Path, list[list[str]]], None]
) -> None:
    folder = make_archive(tmp_path)
    rows = rows_of(2)
    rows[1][0] = where
    write(folder / "metadata" / "2.npy", rows)
    with pytest.raises(ArtifactError, match=r"2\.npy, row 2 names a file outside the data"):
        TASK.load(tmp_path)


def test_pickled_metadata_are_not_unpickled(tmp_path: Path) -> None:
    folder = make_archive(tmp_path)
    np.save(folder / "metadata" / "2.npy", np.array(rows_of(2), dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"2\.npy cannot be read"):
        TASK.load(tmp_path)


def test_the_one_empty_image_of_the_archive_is_left_out(tmp_path: Path) -> None:
    folder = make_archive(tmp_path)
    folder = folder.rename(folder.parent / "curv_baseline")
    write_text(folder / "metadata" / "0.npy", [*rows_of(0), ["imgs/0", "sample_172.png", "172", "1"]])
    empty = folder / "imgs" / "0" / "sample_172.png"
    empty.touch()
    easy = Pathfinder(source="published", contour_length=6)
    assert sum(len(split) for split in easy.load(tmp_path).splits().values()) == N
    empty.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"sample_172\.png"):
        easy.load(tmp_path)


def test_metadata_of_no_characters_is_refused(tmp_path: Path) -> None:
    """numpy makes texts of any 32 bits, with which Python itself fails later."""
    table = np.array([["imgs/1", "a.png", "0", "1"]])
    table.view(np.uint32)[0, 0] = 0x110000
    np.save(tmp_path / "1.npy", table)
    with pytest.raises(ArtifactError, match="no character"):
        read_rows(tmp_path / "1.npy")
