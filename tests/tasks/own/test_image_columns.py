"""Columns of images in tables and in folders of the library ``datasets``, held against the same images as files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnprobe.errors import ArtifactError
from attnprobe.tasks.own.images import ImageFolder

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.data
N, SIZE = 21, (5, 7)
NAMES = ("bird", "cat", "dog")
LABELS = [i % 3 for i in range(N)]
SPLITS = [("train", "train", "validation", "test")[i % 4] for i in range(N)]
CLASSES = {b"huggingface": json.dumps({"info": {"features": {"label": {"names": NAMES}}}}).encode()}


def pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed, **options)).save(stream, kind)
    return stream.getvalue()


def stored(**changes: Any) -> Any:
    """As ``datasets`` stores its feature Image."""
    images = [{"bytes": encoded(i), "path": None} for i in range(N)]
    return pa.table({"image": images, "label": LABELS} | changes).replace_schema_metadata(CLASSES)


@pytest.fixture
def fingerprint(tmp_path: Path) -> str:
    """Of the same images as files in folders, drawn apart by the same seed."""
    for i in range(N):
        place = tmp_path / "files" / SPLITS[i] / NAMES[LABELS[i]]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:02}.png").write_bytes(encoded(i))
    return ImageFolder(path=tmp_path / "files").load().fingerprint()


def in_class_order(table: Any) -> Any:
    """Rows as ``list_images`` goes through the folders."""
    return table.take(sorted(range(N), key=lambda i: (SPLITS[i], LABELS[i], i)))


def test_columns_give_what_files_give(tmp_path: Path, fingerprint: str) -> None:
    whole = in_class_order(stored().append_column("split", [SPLITS]))
    parquet.write_table(whole, tmp_path / "mine.parquet")
    plain = [{"bytes": x}["bytes"] for x in (row["bytes"] for row in whole.column("image").to_pylist())]
    renamed = whole.drop_columns(["image"]).append_column("picture", [plain])
    with pa.OSFile(str(tmp_path / "mine.arrow"), "wb") as file, pa.ipc.new_stream(file, renamed.schema) as writer:
        writer.write_table(renamed)
    assert ImageFolder(path=tmp_path / "mine.parquet").load().fingerprint() == fingerprint
    data = ImageFolder(path=tmp_path / "mine.arrow", column="picture").load()
    assert data.fingerprint() == fingerprint
    assert data.spec.class_names == NAMES
    assert data.spec.grid == SIZE
    assert "split: as the data say" in data.remarks[1]


def test_a_folder_of_the_library_itself(tmp_path: Path, fingerprint: str) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    parts = {}
    for part in dict.fromkeys(sorted(SPLITS)):
        chosen = sorted((i for i in range(N) if SPLITS[i] == part), key=lambda i: (LABELS[i], i))
        images = [Image.fromarray(pixels(i)) for i in chosen]
        rows = {"image": images, "label": [LABELS[i] for i in chosen]}
        parts[part] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert ImageFolder(path=tmp_path / "saved").load().fingerprint() == fingerprint


def test_without_parts_they_are_drawn(tmp_path: Path) -> None:
    parquet.write_table(stored(), tmp_path / "mine.parquet")
    data = ImageFolder(path=tmp_path / "mine.parquet", size=(3, 4), colour="grey").load()
    assert [len(split) for split in data.splits().values()] == [15, 2, 4]
    assert (data.spec.grid, data.spec.channels) == ((3, 4), 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": [{"bytes": None, "path": "a.png"}] * N}, "row 1 holds no image, only the path of one: 'a.png'"),
        ({"image": ["a"] * N}, "row 1 holds 'a', which is no image"),
        ({"image": [b"nothing"] * N}, "row 1 cannot be read"),
        ({"image": [{"bytes": encoded(i, size=(5 + i % 2, 7)), "path": None} for i in range(N)]}, "images of 2 sizes"),
        ({"label": [0] * N}, "one class only"),
        ({"label": [None, *LABELS[1:]]}, "missing for 1 of 21 samples, first 1"),
    ],
)
def test_refusals(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    parquet.write_table(stored(**changes), tmp_path / "mine.parquet")
    with pytest.raises(ArtifactError, match=words) as error:
        ImageFolder(path=tmp_path / "mine.parquet").load()
    assert error.value.hint
    with pytest.raises(ArtifactError, match="has no column 'picture'"):
        ImageFolder(path=tmp_path / "mine.parquet", column="picture").load()
