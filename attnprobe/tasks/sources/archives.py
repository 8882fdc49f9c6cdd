"""Unpacking archives that strangers made: only plain files, only below the target, only as much as was agreed.

An archive is read once from its beginning to its end, and nothing is remembered of what was passed by, so memory does
not grow with the number of its entries.
"""

import errno
import fnmatch
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tarfile import HeaderError, ReadError, TarFile
from typing import IO, NamedTuple

from attnprobe.errors import ArtifactError, AttnprobeError

MAX_FILES = 2_000_000  # written
MAX_ENTRIES = 20_000_000  # written and passed by
MAX_BYTES = 1 << 40  # that are only passed by
MAX_HEADER = 1 << 16  # bytes of a name or of other facts about one entry of a tar
MAX_DESCRIPTIONS = 10  # of one entry: its name, where it links to, facts in pax form
CHUNK = 1 << 20  # bytes
REPORT_EVERY = 1000  # entries
ZIP_MAGIC = b"PK"
PROPER_END = "end of file header"  # what tarfile says of the zeros that end an archive

# Kinds of tar headers that describe the entry after them.
DESCRIPTIONS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}

AGAIN = "download it again"
DISTRUST = "get it from its publisher"

# The operating system's own troubles are none of the archive's doing.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENOENT}

Report = Callable[[int, int], None]  # bytes of the archive read so far, bytes in all


class Entry(NamedTuple):
    """A file in an archive, or what claims to be one."""

    name: str
    size: int  # bytes, as the archive declares it
    objection: str  # why it may not be written; "" for a plain file
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    folder: Path,
    *,
    limit: int,
    wanted: tuple[str, ...] = ("*",),
    report: Report = lambda done, total: None,
) -> int:
    """Write the wanted files of a tar (gzipped or not) or zip archive below ``folder``, which must not exist yet.

    limit: the most bytes that the written files may have together. wanted: patterns of names; whatever matches none is
    passed by and counts only towards bounds on the whole. Returns the number of files written. A wanted link, device,
    name that leads out of the folder, too many bytes, or a damaged archive is an ArtifactError; the caller then throws
    the folder away (see ``build_once``).
    """
    folder.mkdir(parents=True)
    is_wanted = re.compile("|".join(map(fnmatch.translate, wanted))).match
    total = passed = written = 0
    with archive.open("rb") as raw, naming_damage(archive):
        size = archive.stat().st_size
        is_zip = raw.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        raw.seek(0)
        entries = read_zip(archive) if is_zip else read_tar(archive, raw)
        for number, entry in enumerate(entries, start=1):
            if number % REPORT_EVERY == 0:
                report(raw.tell(), size)
            if not is_wanted(entry.name):
                passed += entry.size
                require_bounds(archive, number, passed)
                continue
            total += entry.size
            written += 1
            if total > limit:
                raise refused(archive, f"it unpacks to more than {limit} bytes, which is more than it should hold")
            if written > MAX_FILES:
                raise refused(archive, f"it holds more than {MAX_FILES} files")
            if entry.objection:
                raise refused(archive, f"{entry.name!r} is {entry.objection}")
            copy(entry, folder / safe_name(entry.name, archive), archive, lambda: report(raw.tell(), size))
        report(size, size)
    return written


@contextmanager
def naming_damage(archive: Path) -> Iterator[None]:
    """Whatever the readers raise on a damaged archive becomes one line; a full disk stays what it is."""
    try:
        yield
    except AttnprobeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile adds a line for every format it tried
        reason = reason or type(error).__name__
        raise ArtifactError(f"{archive} is damaged or truncated: {reason}", hint=AGAIN) from error


def refused(archive: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{archive} was refused: {reason}", hint=DISTRUST)


def require_bounds(archive: Path, entries: int, size: int) -> None:
    """What nobody wants must be read, too; there is an end to that."""
    if entries > MAX_ENTRIES:
        raise refused(archive, f"it holds more than {MAX_ENTRIES} entries")
    if size > MAX_BYTES:
        raise refused(archive, f"it holds more than {MAX_BYTES} bytes")


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """A relative path without upward steps, by the rules of Unix and of Windows."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    rooted = path.is_absolute() or windows.drive or windows.root
    if rooted or "\\" in name or "\0" in name or ".." in path.parts or path.name == "":
        raise refused(archive, f"it holds a file named {name!r}, which leads out of the folder")
    return path


def copy(entry: Entry, target: Path, archive: Path, tick: Callable[[], None]) -> None:
    """Write one entry; ``tick`` is called after every piece of a large one."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise FileExistsError
    except (FileExistsError, NotADirectoryError):
        raise refused(archive, f"{entry.name!r} is both a file and a folder in it") from None
    if target.exists():
        raise refused(archive, f"it holds {entry.name!r} twice")
    source = entry.open()
    assert source is not None, "only plain files get here"
    left = entry.size
    with source, target.open("xb") as file:
        while chunk := source.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
            if len(chunk) == CHUNK:
                tick()
    if left:
        raise ArtifactError(f"{archive} is damaged: {entry.name!r} does not have the size it declares", hint=AGAIN)


class Member(tarfile.TarInfo):
    """A tar's entry that is read with suspicion.

    The standard library takes a broken header, or none, for the end of the archive, and reads the facts about an entry
    into memory however long they claim to be.
    """

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> "Member":
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if str(error) == PROPER_END:
                raise
            raise ReadError(str(error)) from None

    def _proc_member(self, tarfile_: TarFile) -> tarfile.TarInfo:
        assert isinstance(tarfile_, Tar)
        tarfile_.descriptions = tarfile_.descriptions + 1 if self.type in DESCRIPTIONS else 0
        too_long = self.type in DESCRIPTIONS and self.size > MAX_HEADER
        if too_long or tarfile_.descriptions > MAX_DESCRIPTIONS or self.type == tarfile.GNUTYPE_SPARSE:
            raise ReadError(f"{self.name!r} takes too much to describe")
        return super()._proc_member(tarfile_)  # pyright: ignore[reportAttributeAccessIssue] - made to be overridden


class Tar(TarFile):
    tarinfo = Member
    descriptions = 0  # read one after the other without an entry


def read_tar(archive: Path, raw: IO[bytes]) -> Iterator[Entry]:
    with Tar.open(fileobj=raw, mode="r:*") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or memory grows with their number
            if len(tar.pax_headers) > MAX_HEADER:
                raise refused(archive, "it holds too many facts about all its entries")
            if member.isdir():
                continue
            plain = member.isreg() and not member.issparse()
            objection = "" if plain else "a link or a special file"
            yield Entry(member.name, member.size, objection, lambda member=member: tar.extractfile(member))
        assert tar.fileobj is not None
        while rest := tar.fileobj.read(CHUNK):  # to the end, where gzip keeps its checksum
            if rest.strip(b"\0"):
                raise ReadError("something follows its end")


def read_zip(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            special = mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)
            objection = "a link or a special file" if special else "encrypted" if info.flag_bits & 0x1 else ""
            yield Entry(info.filename, info.file_size, objection, lambda info=info: file.open(info))
