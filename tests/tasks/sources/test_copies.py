"""Finding, unpacking and verifying local copies of data sets."""

from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError
from attnprobe.tasks.sources.catalogue import SOURCES, File, Source
from attnprobe.tasks.sources.copies import find, locate, read_rows, status, verify
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.sources.test_download import checksum

pytestmark = pytest.mark.usefixtures("cache")


# --- finding a copy --------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A source whose markers lie in a folder of its archive; the user's folder is "mine"."""
    (tmp_path / "mine").mkdir()
    file = File(name="data.tar.gz", urls=("http://127.0.0.1:9/",), size=None, checksum=None)
    source = Source(
        title="Packed data: nothing",
        folder="packed",
        files=(file,),
        markers=("a.tsv", "b.txt"),
        inner=("", "inside"),
        wanted=("inside/*",),
        unpacked=1000,
        counts={"*.txt": 2},
        rows={"a.tsv": 2},
        contents={"b.txt": checksum(b"b", "sha256")},
    )
    monkeypatch.setitem(SOURCES, "packed", source)
    return "packed"


FILES = {"inside/a.tsv": b"1\tx\n2\ty\n", "inside/b.txt": b"b", "inside/c.txt": b"c", "elsewhere/d.txt": b"d"}


def put_archive(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return make_tar(folder / "data.tar.gz", files or FILES)


def put_files(folder: Path) -> None:
    for name, content in FILES.items():
        path = folder / name.removeprefix("inside/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("place", ["mine", "mine/packed", "cache/packed", "system/packed", "mine/inside"])
def test_unpacked_files_are_found_where_they_lie(tmp_path: Path, packed: str, place: str) -> None:
    assert status(packed, tmp_path / "mine") == "absent"
    put_files(tmp_path / place)
    assert status(packed, tmp_path / "mine") == "ready"
    assert find((packed,), tmp_path / "mine") == (packed, tmp_path / place)


@pytest.mark.parametrize("place", ["mine", "mine/packed", "cache/packed"])
def test_an_archive_is_unpacked_into_the_cache(tmp_path: Path, cache: Path, packed: str, place: str) -> None:
    put_archive(tmp_path / place)
    assert status(packed, tmp_path / "mine") == "packed"
    _, folder = find((packed,), tmp_path / "mine")
    assert folder.is_relative_to(cache)
    assert {path.name for path in folder.iterdir()} == {"a.tsv", "b.txt", "c.txt"}
    assert not list(tmp_path.rglob("d.txt"))
    assert status(packed, tmp_path / "mine") == "ready"
    assert find((packed,), tmp_path / "mine") == (packed, folder)


def test_another_archive_under_the_same_name_is_read_anew(tmp_path: Path, packed: str) -> None:
    put_archive(tmp_path / "mine")
    _, first = find((packed,), tmp_path / "mine")
    put_archive(tmp_path / "mine", FILES | {"inside/c.txt": b"changed"})
    _, second = find((packed,), tmp_path / "mine")
    assert (first / "c.txt").read_bytes() == b"c"
    assert (second / "c.txt").read_bytes() == b"changed"


def test_the_users_folder_goes_before_the_cache(tmp_path: Path, cache: Path, packed: str) -> None:
    put_files(cache / "packed")
    put_archive(tmp_path / "mine", FILES | {"inside/c.txt": b"mine"})
    _, folder = find((packed,), tmp_path / "mine")
    assert (folder / "c.txt").read_bytes() == b"mine"


def test_a_malicious_archive_writes_nothing_outside(tmp_path: Path, cache: Path, packed: str) -> None:
    put_archive(tmp_path / "mine", FILES | {"inside/../../../../evil": b"evil"})
    with pytest.raises(ArtifactError, match="leads out"):
        find((packed,), tmp_path / "mine")
    assert not list(tmp_path.rglob("evil"))
    assert not list(cache.rglob("a.tsv"))


def test_an_archive_of_something_else_is_refused(tmp_path: Path, packed: str) -> None:
    put_archive(tmp_path / "mine", {"other": b"1"})
    with pytest.raises(ArtifactError, match="does not hold"):
        find((packed,), tmp_path / "mine")


def test_nothing_found_says_where_and_what_to_do(tmp_path: Path, cache: Path, packed: str) -> None:
    assert locate((packed,), tmp_path / "mine") is None
    with pytest.raises(ArtifactError, match="no complete copy of Packed data: looked in") as error:
        find((packed,), tmp_path / "mine")
    assert str(tmp_path / "mine") in str(error.value)
    assert "attnprobe data fetch packed" in error.value.hint
    assert f"data.tar.gz into {cache / 'packed'}" in error.value.hint


def test_an_incomplete_copy_is_not_passed_over(tmp_path: Path, cache: Path, packed: str) -> None:
    put_files(cache / "packed")
    put_files(tmp_path / "mine")
    (tmp_path / "mine" / "b.txt").unlink()
    assert status(packed, tmp_path / "mine") == "incomplete"
    assert locate((packed,), tmp_path / "mine") is None
    with pytest.raises(ArtifactError, match=r"no complete copy of Packed data: .*mine lacks b\.txt$"):
        find((packed,), tmp_path / "mine")
    put_files(tmp_path / "mine" / "packed")  # theirs as well
    assert find((packed,), tmp_path / "mine") == (packed, tmp_path / "mine" / "packed")


def test_a_link_may_lead_to_the_folder_but_not_out_of_it(tmp_path: Path, packed: str) -> None:
    put_files(tmp_path / "disk")
    (tmp_path / "mine" / "packed").symlink_to(tmp_path / "disk")
    assert find((packed,), tmp_path / "mine") == (packed, tmp_path / "mine" / "packed")
    (tmp_path / "disk" / "a.tsv").rename(tmp_path / "a.tsv")
    (tmp_path / "disk" / "a.tsv").symlink_to(tmp_path / "a.tsv")
    with pytest.raises(ArtifactError, match=r"a\.tsv is a link that leads out of") as error:
        find((packed,), tmp_path / "mine")
    assert error.value.hint


# --- verifying a copy ------------------------------------------------------------------------------------------------


def test_a_right_copy_passes(tmp_path: Path, packed: str) -> None:
    put_archive(tmp_path / "mine")
    checks = verify(packed, tmp_path / "mine")
    assert {check.what for check in checks} == {"a.tsv", "b.txt", "*.txt", "data.tar.gz"}
    assert [check for check in checks if check.ok is None] == [check for check in checks if check.what == "data.tar.gz"]
    assert all(check.ok is not False for check in checks)


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        ({"b.txt": b"B"}, "b.txt", checksum(b"B", "sha256")),
        ({"e.txt": b""}, "*.txt", "3 files"),
        ({"a.tsv": b"1\tx\n"}, "a.tsv", "1 rows"),
    ],
)
def test_every_deviation_is_named(tmp_path: Path, packed: str, change: dict[str, bytes], what: str, found: str) -> None:
    put_files(tmp_path / "mine")
    for name, content in change.items():
        (tmp_path / "mine" / name).write_bytes(content)
    failed = [check for check in verify(packed, tmp_path / "mine") if check.ok is False]
    assert [(check.what, check.found) for check in failed] == [(what, found)]


@pytest.mark.parametrize("text", ['a\tb\n"c\td\n', 'a\tb\n"', 'a\tb\n"c""', 'a\tb\nc\t"d\ne\tf'])
def test_an_open_quote_is_an_artifact_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="ends within a quoted field"):
        list(read_rows(path))


def test_rows_may_hold_tabs_and_breaks_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text('1\t"a\tb\nc ""d"""\tit\'s "so"\n2\t\tx\n', encoding="utf-8")
    assert list(read_rows(path)) == [["1", 'a\tb\nc "d"', 'it\'s "so"'], ["2", "", "x"]]


@pytest.mark.parametrize("content", [b"\xff\xfe broken", b"a\tb\x00c\n"])
def test_an_unreadable_table_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(content)
    if b"\x00" in content:
        assert list(read_rows(path)) == [["a", "b\x00c"]]
        return
    with pytest.raises(ArtifactError, match="not a readable table"):
        list(read_rows(path))
