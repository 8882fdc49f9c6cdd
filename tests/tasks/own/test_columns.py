"""Parquet and Arrow files, and folders as the library ``datasets`` saves them."""

import json
import os
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError
from attnprobe.tasks.own.table import Table

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.data
N = 23
TEXTS = [f"text {i} " + "é" * (i % 5) for i in range(N)]
LABELS = [i % 2 for i in range(N)]
TOKENS = [list(range(i % 4 + 1)) for i in range(N)]
SPLITS = [("train", "train", "validation", "test")[i % 4] for i in range(N)]
CLASSES = {b"huggingface": json.dumps({"info": {"features": {"label": {"names": ["neg", "pos"]}}}}).encode()}


def table(**changes):
    return pa.table({"text": TEXTS, "label": LABELS, "split": SPLITS} | changes)


def write_stream(path: Path, content) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
        writer.write_table(content, max_chunksize=5)
    return path


def refused(path: Path, words: str, **settings) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        Table(path=path, **settings).load()
    assert error.value.hint


@pytest.fixture
def csv_fingerprint(tmp_path: Path) -> str:
    rows = "".join(f"{t},{y},{s}\n" for t, y, s in zip(TEXTS, LABELS, SPLITS, strict=True))
    (tmp_path / "mine.csv").write_text(f"text,label,split\n{rows}", encoding="utf-8")
    return Table(path=tmp_path / "mine.csv").load().fingerprint()


def test_all_formats_give_the_same_data(tmp_path: Path, csv_fingerprint: str) -> None:
    parquet.write_table(table(), tmp_path / "mine.parquet", row_group_size=7)
    write_stream(tmp_path / "stream.arrow", table())
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as file, pa.ipc.new_file(file, table().schema) as writer:
        writer.write_table(table())
    encoded = table(text=pa.array(TEXTS).dictionary_encode(), label=pa.array([float(y) for y in LABELS]))
    parquet.write_table(encoded, tmp_path / "encoded.parquet")
    for name in ("mine.parquet", "stream.arrow", "file.arrow", "encoded.parquet"):
        assert Table(path=tmp_path / name).load().fingerprint() == csv_fingerprint, name


def test_tokens_are_lists(tmp_path: Path) -> None:
    content = pa.table({"input_ids": TOKENS, "label": ["a", "b", "c"] * 7 + ["a", "b"]})
    parquet.write_table(content, tmp_path / "mine.parquet")
    data = Table(path=tmp_path / "mine.parquet").load()
    assert (data.spec.length, data.spec.vocabulary, data.spec.class_names) == (4, 6, ("a", "b", "c"))
    parquet.write_table(content.set_column(0, "tokens", [[[0.5]] * N]), tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", r"row 1 holds \[0.5\], expected whole numbers")


def test_classes_have_the_names_of_the_features(tmp_path: Path) -> None:
    parquet.write_table(table().replace_schema_metadata(CLASSES), tmp_path / "mine.parquet")
    assert Table(path=tmp_path / "mine.parquet").load().spec.class_names == ("neg", "pos")
    lies = {b"huggingface": CLASSES[b"huggingface"].replace(b'["neg", "pos"]', b'["neg", "pos"], "deep": [[]]')}
    parquet.write_table(table().replace_schema_metadata(lies), tmp_path / "mine.parquet")
    assert Table(path=tmp_path / "mine.parquet").load().spec.class_names == ("neg", "pos")
    parquet.write_table(table().replace_schema_metadata({b"huggingface": b"no json"}), tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", "cannot be read")


def test_missing_and_wrong_values(tmp_path: Path) -> None:
    parquet.write_table(table(label=[None, *LABELS[1:]]), tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", "labels 'label' are missing for 1 of 23 samples, first 1")
    assert "23 read, 1 dropped" in Table(path=tmp_path / "mine.parquet", missing="drop").load().remarks[-1]
    parquet.write_table(table(text=list(range(N))), tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", "row 1 holds 0, which is no text")
    parquet.write_table(table().slice(0, 0), tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", "has no rows")


@pytest.mark.parametrize("name", ["mine.parquet", "mine.arrow"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_stream(path, table()) if name.endswith("arrow") else parquet.write_table(table(), path)
    content = path.read_bytes()
    for place in range(1, len(content), 101):
        path.write_bytes(content[:place])
        with pytest.raises(ArtifactError) as error:
            Table(path=path).load()
        assert error.value.hint


def test_folders_of_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        chosen = table().filter(pa.compute.equal(table()["split"], part)).drop_columns(["split"])
        half = len(chosen) // 2
        for number, piece in enumerate((chosen.slice(0, half), chosen.slice(half))):
            parquet.write_table(piece, tmp_path / "data" / f"{part}-0000{number}-of-00002.parquet")
    data = Table(path=tmp_path).load()
    assert len(data.test) == SPLITS.count("test")
    assert len(data.train) + len(data.validation) == SPLITS.count("train")
    assert "split: by its files" in data.remarks[1]


def test_folders_saved_by_datasets(tmp_path: Path, csv_fingerprint: str) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["0", "1"])})
    rows = {part: [i for i in range(N) if SPLITS[i] == part] for part in ("train", "validation", "test")}
    parts = {
        part: datasets.Dataset.from_dict(
            {"text": [TEXTS[i] for i in index], "label": [LABELS[i] for i in index]}, features=features
        )
        for part, index in rows.items()
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "parts", num_shards={"train": 2, "validation": 1, "test": 1})
    assert Table(path=tmp_path / "parts").load().fingerprint() == csv_fingerprint
    parts["train"].shuffle(seed=0).save_to_disk(tmp_path / "one")
    data = Table(path=tmp_path / "one").load()
    assert sum(map(len, data.splits().values())) == len(rows["train"])


def test_parts_without_labels_are_passed_by_or_dropped(tmp_path: Path) -> None:
    """As published data sets have them: more texts without labels, and test labels that nobody may know."""
    named = table().drop_columns(["split"]).replace_schema_metadata(CLASSES)
    unknown = pa.table({"text": TEXTS, "label": [-1] * N}).replace_schema_metadata(CLASSES)
    for name, content in (("train", named), ("test", unknown), ("unsupervised", unknown)):
        parquet.write_table(content, tmp_path / f"{name}-00000-of-00001.parquet")
    refused(tmp_path, "labels 'label' hold '-1'")
    data = Table(path=tmp_path, missing="drop").load()
    assert sum(map(len, data.splits().values())) == N
    assert data.spec.class_names == ("neg", "pos")
    assert data.remarks[-1] == "parts passed by: unsupervised"


@pytest.mark.parametrize("name", ["../mine.arrow", "/etc/passwd", "", 7])
def test_folders_name_no_files_outside(tmp_path: Path, name: object) -> None:
    write_stream(tmp_path / "mine.arrow", table())
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    refused(tmp_path / "saved", "names a file outside itself")


def test_pipes_in_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.parquet")
    refused(tmp_path, "is no regular file")
