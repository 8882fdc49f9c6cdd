import collections
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks import text as module
from attnprobe.tasks.characters import END_ID, PAD_ID, UNKNOWN_ID, count_characters, make_vocabulary
from attnprobe.tasks.text import Text
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import PER_CLASS, review, shrink, write_imdb


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    shrink(monkeypatch)
    write_imdb(tmp_path / "data" / "aclImdb")
    return tmp_path / "data"


def decode(ids: torch.Tensor, characters: str) -> str:
    special = {PAD_ID: "·", UNKNOWN_ID: "?", END_ID: "$"}
    return "".join(special[i] if i in special else characters[i - 4] for i in ids.tolist())


def test_the_true_size_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert module.PER_CLASS == 12_500
    assert (Text().max_length, Text().min_frequency, Text().validation) == (4096, 15, "held_out")


def test_reviews_come_back_from_their_ids(folder: Path) -> None:
    data = Text(max_length=128, min_frequency=1, validation="test").load(folder)
    texts = [review("train", label, i) for label in ("neg", "pos") for i in range(PER_CLASS)]
    counts = collections.Counter("".join(texts))
    characters = "".join(sorted(counts, key=lambda c: (-counts[c], c)))
    assert data.spec.vocabulary == 4 + len(characters)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.lengths is not None
    found = collections.Counter()
    for ids, label, length in zip(data.train.inputs, data.train.labels, data.train.lengths, strict=True):
        decoded = decode(ids, characters)
        assert decoded[length:] == "·" * (128 - length)
        assert decoded[length - 1] == "$"
        assert decoded[: length - 1].split()[1] == ("neg", "pos")[label]
        found[decoded[: length - 1]] += 1
    assert found == collections.Counter(texts)


def test_rare_characters_share_an_id(folder: Path) -> None:
    (folder / "aclImdb/train/pos/0_7.txt").write_text("ü" * 2 + "ö" * 40, encoding="utf-8")
    data = Text(max_length=128, min_frequency=15, validation="test").load(folder)
    row = next(ids for ids in data.train.inputs if ids[0] == UNKNOWN_ID)
    assert row[:2].tolist() == [UNKNOWN_ID] * 2
    assert len(set(row[2:42].tolist())) == 1
    assert row[2] > END_ID


def test_validation_is_held_out_or_the_test_set(folder: Path) -> None:
    held, published = Text(max_length=64).load(folder), Text(max_length=64, validation="test").load(folder)
    assert (len(held.train), len(held.validation), len(held.test)) == (18, 2, 20)
    assert (len(published.train), len(published.validation)) == (20, 20)
    assert published.validation is published.test
    rows = [tuple(ids.tolist()) for split in (held.train, held.validation) for ids in split.inputs]
    assert len(set(rows)) == 20  # nobody is in both


def test_the_truncated_share_is_counted(folder: Path) -> None:
    data = Text(max_length=50, validation="test").load(folder)
    texts = [review("test", label, i) for label in ("neg", "pos") for i in range(PER_CLASS)]
    assert data.notes["truncated_share_test"] == sum(len(t) > 49 for t in texts) / 20 > 0
    assert data.test.lengths is not None
    assert data.test.lengths.max() == 50
    assert Text(max_length=500).load(folder).notes["truncated_share_train"] == 0


def test_the_archive_is_read_as_well(folder: Path) -> None:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.txt")}
    other = folder.parent / "other"
    other.mkdir()
    make_tar(other / "aclImdb_v1.tar.gz", {**files, "aclImdb/train/unsup/1_0.txt": b"unused"})
    assert Text(max_length=64).load(other).fingerprint() == Text(max_length=64).load(folder).fingerprint()
    assert not list((folder.parent / "cache").rglob("unsup"))


def test_batches_know_their_real_positions(folder: Path) -> None:
    split = Text(max_length=64).load(folder).train
    batch = split.batch(torch.tensor([3, 1]))
    assert batch.valid is not None
    assert split.lengths is not None
    assert batch.valid.sum(1).tolist() == split.lengths[[3, 1]].tolist()
    assert ((batch.inputs == PAD_ID) == ~batch.valid).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 1}, "max_length"),
        ({"min_frequency": 0}, "min_frequency"),
        ({"n_train": 0}, "n_train"),
        ({"n_train": 5, "fraction": 0.1}, "together with n_train"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Text(**settings)  # pyright: ignore[reportArgumentType]


def test_damaged_copies_are_artifact_errors(folder: Path) -> None:
    path = folder / "aclImdb/test/neg/0_7.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match=r"0_7\.txt cannot be read: .*utf-8"):
        Text().load(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match="holds 9 reviews, expected 10"):
        Text().load(folder)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.integers(2, 20), st.integers(1, 3))
def test_encoding_against_a_plain_loop(texts: list[str], max_length: int, minimum: int) -> None:
    counts = collections.Counter("".join(t[: max_length - 1] for t in texts))
    known = sorted((c for c in counts if counts[c] >= minimum), key=lambda c: (-counts[c], ord(c)))
    expected = []
    for t in texts:
        ids = [4 + known.index(c) if c in known else UNKNOWN_ID for c in t[: max_length - 1]] + [END_ID]
        expected.append(ids + [PAD_ID] * (max_length - len(ids)))
    vocabulary = make_vocabulary(count_characters(texts, max_length), minimum)
    encoded = vocabulary.encode(texts, len(texts), max_length)
    assert vocabulary.characters == "".join(known)
    assert encoded.ids.tolist() == expected
    assert encoded.truncated == sum(len(t) >= max_length for t in texts)


def test_wide_vocabularies_get_wider_ids() -> None:
    text = "".join(map(chr, range(1000, 1300)))
    vocabulary = make_vocabulary(count_characters([text], 1000))
    encoded = vocabulary.encode([text], 1, 301)
    assert encoded.ids.dtype.itemsize == 2
    assert encoded.ids[0].tolist() == [*range(4, 304), END_ID]


def test_line_ends_are_kept(folder: Path) -> None:
    path = folder / "aclImdb/train/pos/0_7.txt"
    path.write_bytes(b"one\rtwo\r\nthree\nfour")
    assert module.read_review(path) == "one\rtwo\r\nthree\nfour"
    data = Text(max_length=128, min_frequency=1, validation="test").load(folder)
    assert data.train.lengths is not None
    assert 20 in data.train.lengths.tolist()  # 19 characters and the end sign


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"x" * (module.MAX_BYTES + 1), "more than")])
def test_reviews_of_impossible_length_are_refused(folder: Path, content: bytes, message: str) -> None:
    path = folder / "aclImdb/train/pos/0_7.txt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        Text().load(folder)
    assert error.value.hint


def test_links_that_lead_out_are_refused(folder: Path) -> None:
    path = folder / "aclImdb/train/pos/0_7.txt"
    path.rename(folder / "secret")
    path.symlink_to(folder / "secret")
    with pytest.raises(ArtifactError, match="is a link that leads out of"):
        Text().load(folder)
