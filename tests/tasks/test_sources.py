import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError, RunError
from attnprobe.tasks import copies, download
from attnprobe.tasks.copies import find, locate, read_rows, status, verify
from attnprobe.tasks.download import fetch, needed
from attnprobe.tasks.sources import SOURCES, TASK_SOURCES, File, Source
from tests.tasks.serving import Server, serve
from tests.tasks.test_archives import make_tar

CONTENT = bytes((i * 7919 + i // 251) % 256 for i in range(600_011))
PATH = "/data.bin"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.files[PATH] = CONTENT
        yield running


def checksum(content: bytes, algorithm: str = "md5") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def make_source(
    *urls: str, size: int | None = len(CONTENT), known: str | None = checksum(CONTENT), archive: bool = False
) -> Source:
    file = File(name="data.bin", urls=urls, size=size, checksum=known, archive=archive)
    return Source(title="Test data: nothing", folder="test", files=(file,), markers=("data.bin",), unpacked=10_000)


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_source_is_complete() -> None:
    for name, source in SOURCES.items():
        assert source.files, name
        assert source.markers, name
        for file in source.files:
            assert file.urls, name
            assert all(url.startswith(("http://", "https://")) for url in file.urls), name
            if file.archive:
                assert source.unpacked > 0, name
            algorithm, _, digest = (file.checksum or "md5:" + "0" * 32).partition(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size, name
        for known in source.contents.values():
            algorithm, _, digest = known.partition(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size, name


def test_every_task_names_known_sources_of_one_folder() -> None:
    for names in TASK_SOURCES.values():
        assert len({SOURCES[name].folder for name in names}) == 1


# --- downloading ------------------------------------------------------------------------------------------------------


def test_a_file_arrives_and_is_checked(server: Server, cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    source = make_source(server.url(PATH))
    assert [file.name for file in needed(source, None)] == ["data.bin"]
    (path,) = fetch(source, report=lambda done, total: seen.append((done, total)))
    assert path == cache / "test" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert needed(source, None) == []


def test_a_right_file_is_not_fetched_again(server: Server) -> None:
    for _ in range(2):
        fetch(make_source(server.url(PATH)))
    assert len(server.requests) == 1


def test_a_wrong_file_is_replaced(server: Server, cache: Path) -> None:
    for source in (make_source(server.url(PATH)), make_source(server.url(PATH), known=None)):
        path = cache / "test" / "data.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something else")
        fetch(source)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server: Server, cache: Path, ranges: bool) -> None:
    server.ranges = ranges
    server.cut[PATH] = 400_000
    with pytest.raises(ArtifactError, match="connection broke off") as error:
        fetch(make_source(server.url(PATH)))
    assert "run the command again" in error.value.hint
    part = cache / "test" / ".data.bin.part"
    arrived = part.stat().st_size
    assert 0 < arrived <= 400_000
    (path,) = fetch(make_source(server.url(PATH)))
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == (PATH, f"bytes={arrived}-")
    assert not part.exists()


def test_a_part_that_is_too_long_starts_afresh(server: Server, cache: Path) -> None:
    (cache / "test").mkdir(parents=True)
    (cache / "test" / ".data.bin.part").write_bytes(CONTENT + b"more")
    (path,) = fetch(make_source(server.url(PATH)))
    assert path.read_bytes() == CONTENT


def test_a_complete_part_needs_no_server(cache: Path) -> None:
    (cache / "test").mkdir(parents=True)
    (cache / "test" / ".data.bin.part").write_bytes(CONTENT)
    (path,) = fetch(make_source("http://127.0.0.1:9/never"))
    assert path.read_bytes() == CONTENT


def test_mirrors_are_tried_in_turn(server: Server) -> None:
    (path,) = fetch(make_source(server.url("/gone"), "http://127.0.0.1:9/closed", server.url(PATH)))
    assert path.read_bytes() == CONTENT
    assert [request for request, _ in server.requests] == ["/gone", PATH]


def test_a_mirror_with_wrong_content_is_passed_over(server: Server) -> None:
    server.files["/evil"] = CONTENT[::-1]
    (path,) = fetch(make_source(server.url("/evil"), server.url(PATH)))
    assert path.read_bytes() == CONTENT


def test_wrong_content_everywhere_leaves_nothing(server: Server, cache: Path) -> None:
    server.files[PATH] = CONTENT[::-1]
    with pytest.raises(ArtifactError, match="wrong checksum"):
        fetch(make_source(server.url(PATH)))
    assert not (cache / "test" / "data.bin").exists()
    assert not (cache / "test" / ".data.bin.part").exists()


def test_without_a_checksum_the_size_counts(server: Server) -> None:
    server.files[PATH] = CONTENT[:-1]
    with pytest.raises(ArtifactError, match=f"got {len(CONTENT) - 1} bytes instead of {len(CONTENT)}"):
        fetch(make_source(server.url(PATH), known=None))


def test_offline_is_one_line_with_the_address(cache: Path) -> None:
    url = "http://127.0.0.1:9/data.bin"
    with pytest.raises(ArtifactError) as error:
        fetch(make_source(url))
    assert str(error.value) == "could not download data.bin: no connection to the server"
    assert url in error.value.hint
    assert str(cache / "test") in error.value.hint


def test_what_the_server_answers_is_told(server: Server) -> None:
    with pytest.raises(ArtifactError, match="the server answered 404 Not Found"):
        fetch(make_source(server.url("/gone")))


def test_another_folder_can_be_chosen(server: Server, tmp_path: Path, cache: Path) -> None:
    (path,) = fetch(make_source(server.url(PATH)), tmp_path / "mine")
    assert path == tmp_path / "mine" / "test" / "data.bin"
    assert not cache.exists()


def test_a_full_disk_is_noticed_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RunError, match="10 bytes free"):
        fetch(make_source(server.url(PATH)))
    assert server.requests == []


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


def test_downloaded_files_are_compared_with_the_table(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "plain", make_source(server.url(PATH)))
    fetch(SOURCES["plain"])
    assert all(check.ok for check in verify("plain"))
    (cache / "test" / "data.bin").write_bytes(CONTENT[::-1])
    failed = [check for check in verify("plain") if check.ok is False]
    assert [check.expected for check in failed] == [checksum(CONTENT)]


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
