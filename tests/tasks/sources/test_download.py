"""The table of data sources, and downloading what it names."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError, RunError
from attnprobe.tasks.sources import download
from attnprobe.tasks.sources.catalogue import SOURCES, TASK_SOURCES, File, Source
from attnprobe.tasks.sources.copies import verify
from attnprobe.tasks.sources.download import fetch, needed
from tests.tasks.sources.serving import Server, serve

CONTENT = bytes((i * 7919 + i // 251) % 256 for i in range(600_011))
PATH = "/data.bin"


pytestmark = pytest.mark.usefixtures("cache")


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


def test_a_wrong_file_is_set_aside(server: Server, cache: Path) -> None:
    for source in (make_source(server.url(PATH)), make_source(server.url(PATH), known=None)):
        path = cache / "test" / "data.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something else")
        fetch(source)
        assert path.read_bytes() == CONTENT
    assert [path.read_bytes() for path in sorted((cache / "test").glob("*.other*"))] == [b"something else"] * 2


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


def test_downloaded_files_are_compared_with_the_table(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "plain", make_source(server.url(PATH)))
    fetch(SOURCES["plain"])
    assert all(check.ok for check in verify("plain"))
    (cache / "test" / "data.bin").write_bytes(CONTENT[::-1])
    failed = [check for check in verify("plain") if check.ok is False]
    assert [check.expected for check in failed] == [checksum(CONTENT)]
