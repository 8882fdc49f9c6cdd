"""Unpacking archives that strangers made: only plain files, only below the target, only as much as was agreed."""

import errno
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from attnprobe.errors import ArtifactError

MAX_ENTRIES = 1_000_000
CHUNK = 1 << 20  # bytes

# What the readers raise on damaged archives; the operating system's own troubles are none of the archive's doing.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OSError,
)
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENOENT}


class Entry(NamedTuple):
    """A plain file in an archive."""

    name: str
    size: int  # bytes, as the archive declares it
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, *, limit: int, wanted: tuple[str, ...] = ("*",)) -> int:
    """Write the plain files of a tar (gzipped or not) or zip archive below ``folder``, which must not exist yet.

    limit: the most bytes the unpacked files may have together. wanted: patterns of names; files that match none are
    left out. Returns the number of files written. A link, a device, a name that leads out of the folder, too many
    bytes, or a damaged archive is an ArtifactError; the caller then throws the folder away (see ``build_once``).
    """
    folder.mkdir(parents=True)
    total = written = 0
    try:
        entries = read_zip(archive) if zipfile.is_zipfile(archive) else read_tar(archive, folder)
        for number, entry in enumerate(entries, start=1):
            if number > MAX_ENTRIES:
                raise ArtifactError(f"{archive} holds more than {MAX_ENTRIES} files")
            target = folder / safe_name(entry.name, archive)
            total += entry.size
            if total > limit:
                raise ArtifactError(f"{archive} unpacks to more than {limit} bytes, which is more than it should hold")
            if any(fnmatch(entry.name, pattern) for pattern in wanted):
                copy(entry, target, archive)
                written += 1
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile adds a line for every format it tried
        raise ArtifactError(f"{archive} is damaged or truncated: {reason}", hint="download it again") from None
    return written


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """A relative path without upward steps, by the rules of Unix and of Windows."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    rooted = path.is_absolute() or windows.drive or windows.root
    if rooted or "\\" in name or "\0" in name or ".." in path.parts or path.name == "":
        raise ArtifactError(f"{archive} was refused: it holds a file named {name!r}, which leads out of the folder")
    return path


def copy(entry: Entry, target: Path, archive: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ArtifactError(f"{archive} was refused: {entry.name!r} is both a file and a folder in it") from None
    if target.exists():
        raise ArtifactError(f"{archive} was refused: it holds {entry.name!r} twice")
    source = entry.open()
    assert source is not None, "only plain files get here"
    left = entry.size
    with source, target.open("xb") as file:
        while chunk := source.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        raise ArtifactError(f"{archive} is damaged: {entry.name!r} does not have the size it declares")


def read_tar(archive: Path, folder: Path) -> Iterator[Entry]:
    with tarfile.open(archive, "r:*") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or memory grows with their number
            if member.isdir():
                continue
            safe_name(member.name, archive)  # before the filter, which quietly strips a leading slash
            if not member.isreg() or member.issparse():
                raise ArtifactError(f"{archive} was refused: {member.name!r} is a link or a special file")
            checked = tarfile.data_filter(member, str(folder))
            yield Entry(checked.name, checked.size, lambda checked=checked: tar.extractfile(checked))
        assert tar.fileobj is not None
        while tar.fileobj.read(CHUNK):  # to the end, where gzip keeps its checksum
            pass


def read_zip(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                raise ArtifactError(f"{archive} was refused: {info.filename!r} is a link or a special file")
            if info.flag_bits & 0x1:
                raise ArtifactError(f"{archive} was refused: {info.filename!r} is encrypted")
            yield Entry(info.filename, info.file_size, lambda info=info: file.open(info))
