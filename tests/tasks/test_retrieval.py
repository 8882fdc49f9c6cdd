from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError
from attnprobe.tasks.characters import END_ID, PAD_ID
from attnprobe.tasks.retrieval import Retrieval
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import write_aan


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    write_aan(tmp_path / "data")
    return tmp_path / "data"


def test_pairs_have_two_texts_and_two_lengths(folder: Path) -> None:
    data = Retrieval(max_length=31).load(folder)
    assert (data.spec.pairs, data.spec.classes, data.spec.length) == (True, 2, 31)
    assert [split.inputs.shape for split in data.splits().values()] == [(7, 2, 31), (3, 2, 31), (5, 2, 31)]
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert data.train.lengths is not None
    assert data.train.lengths.tolist() == [[9, min(31, 6 * (i + 1) + 1)] for i in range(7)]
    assert data.notes["truncated_share_train"] == 2 / 14


def test_both_texts_use_one_vocabulary(folder: Path) -> None:
    data = Retrieval(max_length=31).load(folder)
    assert data.spec.vocabulary == 4 + len(set("first 0123456é" + "second"))
    first, second = data.train.inputs[2]
    assert first[3] == second[0]  # the s of "first" and of "second"
    assert first[8] == second[18] == END_ID
    assert (first[9:] == PAD_ID).all()


def test_batches_of_pairs_know_their_real_positions(folder: Path) -> None:
    split = Retrieval(max_length=31).load(folder).train
    batch = split.batch(torch.tensor([5, 0]))
    assert batch.valid is not None
    assert batch.valid.shape == batch.inputs.shape == (2, 2, 31)
    assert ((batch.inputs == PAD_ID) == ~batch.valid).all()


def test_subsets_keep_pairs_together(folder: Path) -> None:
    whole, part = Retrieval(max_length=31).load(folder).train, Retrieval(max_length=31, n_train=3).load(folder).train
    rows = {whole.inputs[i].numpy().tobytes(): int(whole.labels[i]) for i in range(7)}
    assert [rows[part.inputs[i].numpy().tobytes()] for i in range(3)] == part.labels.tolist()


def test_quoted_fields_may_hold_tabs_and_breaks(folder: Path) -> None:
    path = folder / "new_aan_pairs.eval.tsv"
    path.write_text('1\tP\tQ\t"a\tb\nc"\t"say ""d"""\n0\tP\tQ\tx\ty\n', encoding="utf-8")
    data = Retrieval(max_length=31).load(folder)
    assert data.validation.labels.tolist() == [1, 0]
    assert data.validation.lengths is not None
    assert data.validation.lengths.tolist() == [[6, 8], [2, 2]]


def test_the_release_archive_is_read(folder: Path) -> None:
    files = {f"lra_release/lra_release/tsv_data/{p.name}": p.read_bytes() for p in folder.iterdir()}
    other = folder.parent / "other"
    other.mkdir()
    make_tar(other / "lra_release.gz", {"lra_release/lra_release/listops-1000/basic_test.tsv": b"x", **files})
    assert Retrieval(max_length=31).load(other).fingerprint() == Retrieval(max_length=31).load(folder).fingerprint()
    assert not list((folder.parent / "cache").rglob("basic*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1\tP\tQ\tonly one text", "row 2 has 4 columns"),
        ("1\tP\tQ\ta\tb\tc", "row 2 has 6 columns"),
        ("1\tP\tQ\ta\tb\rc", "row 3 has 1 columns"),  # mixed line ends
        ("2.0\tP\tQ\ta\tb", "label '2.0'"),
    ],
)
def test_damaged_rows_are_artifact_errors(folder: Path, row: str, message: str) -> None:
    (folder / "new_aan_pairs.test.tsv").write_bytes(f"1\tP\tQ\ta\tb\n{row}\n".encode())
    with pytest.raises(ArtifactError, match=message):
        Retrieval().load(folder)


def test_an_empty_file_is_an_artifact_error(folder: Path) -> None:
    (folder / "new_aan_pairs.train.tsv").write_text("")
    with pytest.raises(ArtifactError, match="holds no pairs"):
        Retrieval().load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('1\tP\tQ\ta\t"b\n0\tR\tS\tc\td\n0\tT\tU\te\tf\n', "ends within a quoted field"),
        ('1\tP\tQ\ta\t"b\n0\tR\tS\tc\td"\n0\tT\tU\te\tf\n', "row 1 has another row in a quoted text"),
        ('1\tP\tQ\ta\t"b\n0.0\tR\tS\tc\t"d"\n0\tT\tU\te\tf\n', "row 1 has another row in a quoted text"),
        ('1\tP\tQ\ta\t"b\r\n1.0\tR\tS\tc\td"\r\n0\tT\tU\te\tf\r\n', "row 1 has another row"),
    ],
)
def test_an_open_quote_loses_no_rows(folder: Path, text: str, message: str) -> None:
    (folder / "new_aan_pairs.test.tsv").write_bytes(text.encode())
    with pytest.raises(ArtifactError, match=message) as error:
        Retrieval().load(folder)
    assert "new_aan_pairs.test.tsv" in str(error.value)
    assert error.value.hint


def test_a_byte_order_mark_is_named(folder: Path) -> None:
    path = folder / "new_aan_pairs.test.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(ArtifactError, match=r"row 1 has the label '\\ufeff"):
        Retrieval().load(folder)
