import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ArtifactError
from attnprobe.tasks.sources.archives import safe_name, unpack

LIMIT = 10_000


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FILES = {"data/a.txt": b"first", "data/deeper/b.txt": b"", "c": b"x" * 5000}


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz"])
def test_tar_comes_out_as_it_went_in(tmp_path: Path, mode: str) -> None:
    archive = make_tar(tmp_path / "a.tar", FILES, mode)
    assert unpack(archive, tmp_path / "out", limit=LIMIT) == 3
    assert tree(tmp_path / "out") == FILES


def test_zip_comes_out_as_it_went_in(tmp_path: Path) -> None:
    assert unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "out", limit=LIMIT) == 3
    assert tree(tmp_path / "out") == FILES


def test_only_wanted_files_are_written(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", FILES)
    assert unpack(archive, tmp_path / "out", limit=LIMIT, wanted=("*/b.txt", "none")) == 1
    assert list(tree(tmp_path / "out")) == ["data/deeper/b.txt"]


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "//evil", "..", "a\\..\\evil", "C:evil", "C:\\evil"]
)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, make) -> None:
    inner = tmp_path / "cache"
    inner.mkdir()
    archive = make(tmp_path / "archive", {"good": b"1", name: b"evil"})
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        unpack(archive, inner / "out", limit=LIMIT)
    assert tree(inner) == {"out/good": b"1"}
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("innocent")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
        inside = tarfile.TarInfo("innocent/file")  # would be written through the link
        inside.size = 1
        tar.addfile(inside, io.BytesIO(b"1"))
    with pytest.raises(ArtifactError, match="link or a special file"):
        unpack(archive, tmp_path / "out", limit=LIMIT)
    assert tree(tmp_path / "out") == {}


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("innocent")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(ArtifactError, match="link or a special file"):
        unpack(archive, tmp_path / "out", limit=LIMIT)


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_bombs_are_refused_before_they_are_written(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "bomb", {"zeros": bytes(50 * LIMIT)})
    assert archive.stat().st_size < LIMIT  # compressed it looks harmless
    with pytest.raises(ArtifactError, match=f"more than {LIMIT} bytes"):
        unpack(archive, tmp_path / "out", limit=LIMIT)
    assert tree(tmp_path / "out") == {}


def test_many_files_count_together(tmp_path: Path) -> None:
    files = {f"{i}": bytes(LIMIT // 4) for i in range(5)}
    with pytest.raises(ArtifactError, match="more than"):
        unpack(make_tar(tmp_path / "a.tar.gz", files), tmp_path / "out", limit=LIMIT)


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"<html>not found</html>" * 99)
    with pytest.raises(ArtifactError, match=r"is damaged or truncated: file could not be opened successfully$"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", limit=LIMIT)


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_cut_archives_are_damaged(tmp_path: Path, make, keep: float) -> None:
    generator_bytes = bytes((i * 7919) % 251 for i in range(4000))
    archive = make(tmp_path / "a", {"a": generator_bytes, "b": generator_bytes[::-1]})
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(ArtifactError, match="damaged"):
        unpack(archive, tmp_path / "out", limit=LIMIT)


def test_a_cut_plain_tar_is_damaged(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"a": bytes(5000)}, "w")
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(ArtifactError, match="damaged"):
        unpack(archive, tmp_path / "out", limit=LIMIT)


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path, make) -> None:
    """Content differs from the original only if unpacking fails: gzip and zip keep checksums."""
    original = make(tmp_path / "a", {"a": b"some content to protect" * 3}).read_bytes()
    for position in range(0, len(original), 3):
        archive = tmp_path / f"{position}"
        archive.write_bytes(original[:position] + bytes([original[position] ^ 0x55]) + original[position + 1 :])
        try:
            unpack(archive, tmp_path / f"out{position}", limit=LIMIT)
        except ArtifactError:
            continue
        assert set(tree(tmp_path / f"out{position}").values()) <= {b"some content to protect" * 3}


def test_a_file_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for content in (b"1", b"2"):
            member = tarfile.TarInfo("same")
            member.size = 1
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ArtifactError, match="twice"):
        unpack(archive, tmp_path / "out", limit=LIMIT)


def test_something_else_is_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ArtifactError, match="damaged"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", limit=LIMIT)


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "\\", "C:", "~"]), min_size=1, max_size=6))
def test_a_safe_name_never_leaves_the_folder(parts: list[str]) -> None:
    name = "/".join(parts)
    try:
        safe = safe_name(name, Path("archive"))
    except ArtifactError:
        return
    assert (Path("/root/folder") / safe).resolve().is_relative_to("/root/folder")
