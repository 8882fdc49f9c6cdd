"""Archives of the real size: only what is wanted counts, and memory does not grow with what is not."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError
from attnprobe.tasks.sources import archives
from attnprobe.tasks.sources.archives import MAX_HEADER, unpack
from tests.tasks.sources.test_archives import FILES, LIMIT, make_tar, make_zip, tree

MANY = 20_000
MEGABYTE = 1 << 20


def many_entries(path: Path, wanted_at: tuple[int, ...]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for i in range(MANY):
            member = tarfile.TarInfo(f"wanted/{i}" if i in wanted_at else f"release/pathfinder/imgs/{i // 100}/{i}.png")
            member.size = 70
            tar.addfile(member, io.BytesIO(b"%070d" % i))
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]


def test_memory_does_not_grow_with_the_entries_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of 20 000 members alone would take more than 20 MB."""
    many_entries(tmp_path / "a.tar.gz", (3, 7_000, MANY - 1))
    monkeypatch.setattr(archives, "MAX_FILES", 3)  # others do not count
    seen: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        wanted = ("wanted/*",)
        count = unpack(
            tmp_path / "a.tar.gz", tmp_path / "out", limit=210, wanted=wanted, report=lambda *at: seen.append(at)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3
    assert {name: int(content) for name, content in tree(tmp_path / "out").items()} == {
        f"wanted/{i}": i for i in (3, 7_000, MANY - 1)
    }
    assert peak < 5 * MEGABYTE
    size = (tmp_path / "a.tar.gz").stat().st_size
    assert seen == sorted(seen)
    assert len(seen) >= MANY // archives.REPORT_EVERY
    assert seen[-1] == (size, size)


def test_what_is_not_wanted_may_be_anything(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("other/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("../other", "other/large", "data/a"):
            member = tarfile.TarInfo(name)
            member.size = LIMIT // 2 + 1
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    assert unpack(archive, tmp_path / "out", limit=LIMIT, wanted=("data/*",)) == 1
    assert list(tree(tmp_path / "out")) == ["data/a"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize(
    ("bound", "value", "wanted", "message"),
    [
        ("MAX_FILES", 2, "*", "more than 2 files"),
        ("MAX_ENTRIES", 2, "none", "more than 2 entries"),
        ("MAX_BYTES", 5000, "none", "more than 5000 bytes"),
    ],
)
def test_there_is_an_end_to_every_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, bound: str, value: int, wanted: str, message: str
) -> None:
    archive = make(tmp_path / "a", FILES)
    unpack(archive, tmp_path / "first", limit=LIMIT, wanted=(wanted,))
    monkeypatch.setattr(archives, bound, value)
    with pytest.raises(ArtifactError, match=message) as error:
        unpack(archive, tmp_path / "second", limit=LIMIT, wanted=(wanted,))
    assert error.value.hint


# --- what the standard library would take for the end ----------------------------------------------------------------


def plain_tar(path: Path) -> bytes:
    return make_tar(path / "whole.tar", {"a": b"first", "b": b"second"}, "w").read_bytes()


HEADER, BLOCKS = 512, 1024  # one entry of these takes a header and one block


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("change", ["cut between entries", "cut in a header", "broken header", "a second archive"])
def test_a_tar_that_ends_early_is_damaged(tmp_path: Path, pack, change: str) -> None:
    whole = plain_tar(tmp_path)
    changed = {
        "cut between entries": whole[:BLOCKS],
        "cut in a header": whole[: BLOCKS + 100],
        "broken header": whole[:BLOCKS] + b"x" + whole[BLOCKS + 1 :],
        "a second archive": whole + whole,
    }[change]
    (tmp_path / "a.tar").write_bytes(pack(whole))
    assert unpack(tmp_path / "a.tar", tmp_path / "first", limit=LIMIT) == 2
    (tmp_path / "a.tar").write_bytes(pack(changed))
    with pytest.raises(ArtifactError, match=r"damaged or truncated: \w") as error:
        unpack(tmp_path / "a.tar", tmp_path / "second", limit=LIMIT)
    assert error.value.hint


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
def test_a_description_of_absurd_length_is_not_read(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("long")
    member.type, member.size = kind, 64 * MEGABYTE
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(tarfile.TarInfo("first").tobuf() + member.tobuf(tarfile.GNU_FORMAT) + bytes(member.size))
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="takes too much to describe"):
            unpack(archive, tmp_path / "out", limit=LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MEGABYTE


def test_long_names_are_read(tmp_path: Path) -> None:
    name = "/".join(["d" * 100] * 5) + "/file"
    assert len(name) < MAX_HEADER
    for mode in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive = tmp_path / f"{mode}.tar"
        with tarfile.open(archive, "w", format=mode) as tar:
            tar.addfile(tarfile.TarInfo(name))
        unpack(archive, tmp_path / f"out{mode}", limit=LIMIT)
        assert list(tree(tmp_path / f"out{mode}")) == [name]


def test_a_chain_of_descriptions_is_one_line(tmp_path: Path) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 5
    chain = (member.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 11
    (tmp_path / "a.tar").write_bytes(tarfile.TarInfo("first").tobuf() + chain + plain_tar(tmp_path))
    with pytest.raises(ArtifactError, match="takes too much to describe"):
        unpack(tmp_path / "a.tar", tmp_path / "out", limit=LIMIT)


def test_a_tar_with_a_zip_in_it_is_a_tar(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"inside": b"1"}).read_bytes()
    archive = make_tar(tmp_path / "a.tar", {"a": b"1", "inner.zip": inner}, "w")
    assert unpack(archive, tmp_path / "out", limit=LIMIT) == 2
    assert tree(tmp_path / "out") == {"a": b"1", "inner.zip": inner}
