"""Tables of a person's own: what is read is what was written, and what is wrong with the file is one line."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError
from attnprobe.tasks import Data, Split
from attnprobe.tasks.characters import END_ID, SPECIALS, UNKNOWN_ID
from attnprobe.tasks.own.sequences import PAD_ID, SHIFT
from attnprobe.tasks.own.table import Table

TEXTS = ["Éa, b", 'say "no"', "two\nlines", "NA", "1e5", "  x ", "日本", "null", "a\tb", "end"]
SPLITS = ["train", "train", "train", "validation", "test"] * 2


def write(path: Path, columns: dict[str, list[str]], separator: str = ",", **form: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, **form)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def texts(**changes: list[str]) -> dict[str, list[str]]:
    return {"text": TEXTS, "label": ["no", "yes"] * 5, "split": SPLITS} | changes


def sequences(split: Split) -> list[list[int]]:
    lengths = split.lengths
    full = split.inputs.shape[1]
    rows = [full] * len(split) if lengths is None else lengths.tolist()
    return [ids[:n].tolist() for ids, n in zip(split.inputs, rows, strict=True)]


def as_read(data: Data) -> dict[str, list[tuple[list[int], str]]]:
    names = data.spec.class_names
    return {
        name: list(zip(sequences(split), [names[label] for label in split.labels], strict=True))
        for name, split in data.splits().items()
    }


def as_written(columns: dict[str, list[str]], part: str) -> list[tuple[bytes, str]]:
    rows = zip(*columns.values(), strict=True)
    return [(text.encode(), label) for text, label, split in rows if split == part]


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv", ";")])
def test_texts_come_back_byte_by_byte(tmp_path: Path, ending: str, separator: str) -> None:
    path = write(tmp_path / f"mine{ending}", texts(), separator)
    data = Table(path=path, unit="bytes", separator=separator).load()
    assert (data.spec.vocabulary, data.spec.class_names) == (256 + SPECIALS, ("no", "yes"))
    assert data.spec.length == max(len(text.encode()) for text in TEXTS) + 1
    for part, rows in as_read(data).items():
        assert all(ids[-1] == END_ID for ids, _ in rows)
        assert [(bytes(i - SPECIALS for i in ids[:-1]), label) for ids, label in rows] == as_written(texts(), part)


printable = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=9)


@given(st.lists(printable, min_size=10, max_size=10))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, found: list[str]) -> None:
    columns = texts(text=found)
    path = write(tmp_path_factory.mktemp("any") / "mine.csv", columns, quoting=csv.QUOTE_ALL)
    rows = as_read(Table(path=path, unit="bytes").load())
    for part in rows:
        assert [(bytes(i - SPECIALS for i in ids[:-1]), label) for ids, label in rows[part]] == as_written(
            columns, part
        )


def test_characters_and_words_are_those_of_the_training_texts(tmp_path: Path) -> None:
    columns = texts(text=["b a", "a b", "b", "a new", "b c"] * 2)
    path = write(tmp_path / "mine.csv", columns)
    words = Table(path=path, unit="words").load()
    b, a = SPECIALS, SPECIALS + 1  # the more frequent first
    assert words.spec.vocabulary == SPECIALS + 2
    assert sequences(words.train)[:3] == [[b, a, END_ID], [a, b, END_ID], [b, END_ID]]
    assert sequences(words.validation)[0] == [a, UNKNOWN_ID, END_ID]
    assert sequences(words.test)[0] == [b, UNKNOWN_ID, END_ID]
    characters = Table(path=path).load()
    assert characters.spec.vocabulary == SPECIALS + 3
    assert sequences(characters.test)[0] == [SPECIALS, SPECIALS + 1, UNKNOWN_ID, END_ID]
    assert Table(path=path, unit="words", min_frequency=5).load().spec.vocabulary == SPECIALS + 1


@pytest.mark.parametrize("form", ["{}", "[{}]"])
@pytest.mark.parametrize("between", [" ", ",", ", "])
def test_tokens_come_back(tmp_path: Path, form: str, between: str) -> None:
    rows = [[i, 3 * i, 7][: 1 + i % 3] for i in range(10)]
    columns = {"tokens": [form.format(between.join(map(str, row))) for row in rows], "label": list("ab" * 5)}
    data = Table(path=write(tmp_path / "mine.tsv", columns | {"split": SPLITS}, "\t")).load()
    assert data.spec.vocabulary == max(map(max, rows)) + 1 + SHIFT
    wanted = [[t + SHIFT for t in row] for row, part in zip(rows, SPLITS, strict=True) if part == "train"]
    assert sequences(data.train) == wanted
    assert (data.train.inputs.numpy()[0, 1:] == PAD_ID).all()


def test_long_texts_are_cut_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", texts(text=["x" * (i + 1) for i in range(10)]))
    data = Table(path=path, max_length=5).load()
    assert data.spec.length == 5
    assert data.notes["truncated_share_train"] == pytest.approx(3 / 6)
    assert all(ids[-1] == END_ID and len(ids) <= 5 for ids in sequences(data.train))
    with pytest.raises(ArtifactError, match="6 rows are too long, first row 5 with 6 positions") as error:
        Table(path=path, max_length=5, too_long="refuse").load()
    assert "truncate" in error.value.hint
    assert Table(path=path, max_length=11, too_long="refuse").load().spec.length == 11


def test_columns_have_any_names(tmp_path: Path) -> None:
    columns = {"review": TEXTS, "stars": ["1", "10"] * 5, "part": ["0", "1", "2", "0", "0"] * 2, "other": TEXTS}
    data = Table(path=write(tmp_path / "mine.csv", columns), text="review", label="stars", split="part").load()
    assert [len(split) for split in data.splits().values()] == [6, 2, 2]
    assert data.spec.class_names == ("1", "10")


def test_rows_that_lack_something_are_refused_or_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", texts(text=["", *TEXTS[1:]], label=["a", "", *"abababab"]))
    with pytest.raises(ArtifactError, match="column 'text' is empty in 1 rows, first in row 1") as error:
        Table(path=path).load()
    assert "task.missing=drop" in error.value.hint
    data = Table(path=path, missing="drop").load()
    assert sum(map(len, data.splits().values())) == 8
    assert "10 read, 2 dropped" in data.remarks[-1]
    path = write(tmp_path / "mine.csv", texts(label=["a", "", *"abababab"]))
    with pytest.raises(ArtifactError, match="labels 'label' are missing for 1 of 10 samples, first 2"):
        Table(path=path).load()


@pytest.mark.parametrize(
    ("content", "settings", "words", "hint"),
    [
        ("txet,label\nx,a\n", {}, "has no column 'text'; it has 'txet', 'label'", "did you mean 'txet'"),
        ("text,lable\nx,a\n", {}, "has no column 'label'", "did you mean 'lable'"),
        ("text,label\nx,a\n", {"tokens": "ids"}, "has no column 'ids'", "task.tokens"),
        ("text,label\nx,a\n", {"split": "fold"}, "has no column 'fold'", "task.split"),
        ("text,label\nx,a\n", {"label": "text"}, "one column cannot be two things", "chosen"),
        ("text,label\n", {}, "has a heading and no rows", "written"),
        ("text,label\nx,a\ny,b,c,d\n", {}, "line 3 has 4 columns, the heading 2", "double quotes"),
        ("text,label\nx,a,1\ny,b,2\n", {}, "line 2 has 3 columns, the heading 2", "double quotes"),
        ('text,label\n"x,a\ny,b\n', {}, "cannot be read", "double quotes"),
        ("text,label\nx,a\ny,\n", {}, "labels 'label' are missing for 5 of 10", "drop"),
        ("tokens,label\n1 2,a\n1 x,b\n", {}, "row 2 holds '1 x', expected whole numbers", "whole numbers"),
        ("tokens,label\n1 2,a\n1 2.5,b\n", {}, "row 2 holds '1 2.5', expected whole numbers", "whole numbers"),
        ("tokens,label\n1 2,a\n1 -2,b\n", {}, "row 2 has the negative token -2", "from 0 on"),
        ("tokens,label\n1 2,a\n[],b\n", {}, "row 2 has no tokens", "from 0 on"),
        ("tokens,label\n1 2,a\n99999999,b\n", {}, "holds the token 99999999", "number the tokens"),
        ("tokens,label\n1 2,a\n99999999999999999999,b\n", {}, "expected whole numbers", "whole"),
        ("text,label\nx,a\ny,a\n", {}, "one class only: 'a'", "two"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, content: str, settings: dict, words: str, hint: str) -> None:
    heading, _, rows = content.partition("\n")
    (tmp_path / "mine.csv").write_text(f"{heading}\n{5 * rows}")
    with pytest.raises(ArtifactError, match=words) as error:
        Table(path=tmp_path / "mine.csv", **settings).load()
    assert hint in error.value.hint
    assert "\n" not in str(error.value)


def test_quotes_can_be_characters(tmp_path: Path) -> None:
    rows = "".join(f'"open {i}\t{"ab"[i % 2]}\n' for i in range(10))
    (tmp_path / "mine.tsv").write_text(f"text\tlabel\n{rows}")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Table(path=tmp_path / "mine.tsv").load()
    assert len(Table(path=tmp_path / "mine.tsv", quotes=False).load().train) == 7


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, content, words in (
        ("a.csv", b"", "is empty"),
        ("b.csv", b"text,label\n\xff\xfe,a\n", "cannot be read"),
        ("c.csv.gz", b"\x1f\x8b", "is no table that can be read"),
        ("d.xlsx", b"PK", "is no table that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=words) as error:
            Table(path=tmp_path / name).load()
        assert error.value.hint
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ArtifactError, match="is no regular file"):
        Table(path=tmp_path / "pipe.csv").load()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="holds no data set"):
        Table(path=tmp_path / "folder").load()


@pytest.mark.parametrize("bad", [{"max_length": 1}, {"min_frequency": 0}, {"separator": ",,"}, {"separator": '"'}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Table(**bad)


@given(st.binary(max_size=60))
def test_whatever_the_bytes_it_is_data_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "mine.csv"
    path.write_bytes(b"text,label\n" + content)
    try:
        data = Table(path=path).load()
    except AttnprobeError as error:
        refusal = error
    else:
        assert data.spec.classes >= 2
        return
    assert refusal.hint
    assert str(refusal).isprintable()


def test_the_same_split_whatever_the_shares_of_use(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", {"text": [f"t{i}" for i in range(50)], "label": list("ab" * 25)})
    whole, half = Table(path=path).load(), Table(path=path, fraction=0.5).load()
    assert half.spec == whole.spec
    assert sequences(half.test) == sequences(whole.test)
    assert np.bincount(whole.test.labels).tolist() == [5, 5]
    other = Table(path=path, data_seed=1).load()
    assert sequences(other.test) != sequences(whole.test)


def test_other_encodings_are_no_broken_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text,label\né,no\nü,yes\n".encode("latin1"))
    with pytest.raises(ArtifactError) as caught:
        Table(path=str(tmp_path / "t.csv")).load()
    assert "UTF-8" in str(caught.value.hint)


def test_a_class_that_no_training_sample_has_is_told(tmp_path: Path) -> None:
    labels = ["late" if part == "test" else label for part, label in zip(SPLITS, ["no", "yes"] * 5, strict=True)]
    path = write(tmp_path / "t.csv", texts(label=labels))
    remarks = " ".join(Table(path=path).load(None).remarks)
    assert "no training sample is of: late" in remarks
    path = write(tmp_path / "whole.csv", texts())
    assert "no training sample" not in " ".join(Table(path=path).load(None).remarks)
