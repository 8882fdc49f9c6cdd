"""Finding the local copy of a source, unpacking it, and telling whether it is the right one."""

import csv
import dataclasses
import functools
import glob
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from attnprobe.errors import ArtifactError, RunError
from attnprobe.files import checksum, reading
from attnprobe.tasks.sources.archives import Report, unpack
from attnprobe.tasks.sources.cache import ENVIRONMENT, build_once, cache_dir
from attnprobe.tasks.sources.catalogue import SOURCES, Source

SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages put their files
CSV_FIELD_LIMIT = 1 << 24
END = "\0end of rows\0"  # after the last line: a row of its own unless a quoted field is still open


def places(source: Source, data_dir: Path | None) -> list[list[Path]]:
    """Where a copy may lie: the user's folder and folders of the source's name in it, the cache, and the system's.

    ArtifactError if the user's folder does not exist: a copy elsewhere should not be taken for theirs.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise ArtifactError(f"there is no folder {data_dir}", hint="--data-dir must name one")
    folders = list(dict.fromkeys([source.folder, source.download_folder or source.folder]))
    mine = [data_dir, *(data_dir / folder for folder in folders)] if data_dir else []
    return [mine, [cache_dir() / folder for folder in folders], [SYSTEM_FOLDER / source.folder]]


def status(name: str, data_dir: Path | None = None) -> Literal["ready", "packed", "incomplete", "absent"]:
    """Whether a local copy can be read at once, lies there as an archive, lacks a part, or is missing.

    Says what ``locate`` would find. Touches nothing.
    """
    source = SOURCES[name]
    for where in places(source, data_dir):
        archives = list(_archives(source, where))
        if any(marked(source, place) for place in [*where, *(_unpacked_folder(path, source) for path in archives)]):
            return "ready"
        if archives:
            return "packed"
        if _incomplete((name,), where):
            return "incomplete"
    return "absent"


def locate(
    names: Sequence[str],
    data_dir: Path | None,
    markers: tuple[str, ...] | None = None,
    report: Report = lambda done, total: None,
) -> tuple[str, Path] | None:
    """The first of the named sources that has a copy, and the folder with its markers; archives are unpacked once.

    A copy that lacks a part is not passed over for a complete one elsewhere: None, then. markers: instead of the
    sources' own. report: called while an archive is unpacked.
    """
    sources = {name: SOURCES[name] for name in names}
    if markers is not None:
        sources = {name: dataclasses.replace(source, markers=markers) for name, source in sources.items()}
    for where in places(SOURCES[names[0]], data_dir):
        for place in where:
            for name, source in sources.items():
                folder = marked(source, place) or _unpacked(source, place, report)
                if folder is not None:
                    return name, folder
        if _incomplete(names, where):
            return None
    return None


def find(
    names: Sequence[str],
    data_dir: Path | None,
    markers: tuple[str, ...] | None = None,
    report: Report = lambda done, total: None,
) -> tuple[str, Path]:
    """``locate``, or an ArtifactError that says where it looked and what to do."""
    found = locate(names, data_dir, markers, report)
    if found is None:
        first = SOURCES[names[0]]
        where = [place for group in places(first, data_dir) for place in group]
        looked = f"looked in {', '.join(map(str, where))} for {', '.join(markers or first.markers)}"
        looked = _incomplete(names, where) or looked
        wanted = " or ".join(dict.fromkeys(file.name for n in names for file in SOURCES[n].files if file.archive))
        missing = wanted or " and ".join(first.markers)
        target = cache_dir() / (first.download_folder or first.folder)
        hint = f"run `attnprobe data fetch {names[0]}`, or put {missing} into {target}; {first.note}"
        raise ArtifactError(f"no complete copy of {first.title.split(':')[0]}: {looked}", hint=hint.rstrip("; "))
    name, folder = found
    for file in (*(markers or SOURCES[name].markers), *SOURCES[name].prepared):
        require_inside(folder / file, folder)
    return found


def require_inside(path: Path, folder: Path) -> Path:
    """``path``, unless it is a link that leads out of ``folder``; the folder itself may be reached through links."""
    if not path.resolve().is_relative_to(folder.resolve()):
        hint = "copy the file to where the link is, or link the data set's whole folder"
        raise ArtifactError(f"{path} is a link that leads out of {folder}", hint=hint)
    return path


def files_of(folder: Path, ending: str) -> list[Path]:
    """The files of a data set's folder with this ending, by name; none may be a link that leads out of the folder."""
    with reading(folder, hint="check the folder's name and rights"), os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_symlink()) for entry in entries if entry.name.endswith(ending))
    for name, is_link in found:
        if is_link:
            require_inside(folder / name, folder)
    return [folder / name for name, _ in found]


def _incomplete(names: Sequence[str], where: list[Path]) -> str:
    """Which folder holds a part of one of the sources, and what it lacks; "" if none does."""
    for name, place in itertools.product(names, where):
        source = SOURCES[name]
        for inner, files in itertools.product(source.inner, (source.markers, source.prepared)):
            missing = [file for file in files if not (place / inner / file).exists()]
            if 0 < len(missing) < len(files):
                return f"{place / inner} lacks {', '.join(missing)}"
    return ""


def marked(source: Source, place: Path) -> Path | None:
    """The folder at or below ``place`` that holds all the source's markers, or a copy that published code prepared."""
    for files, inner in itertools.product((source.markers, source.prepared), source.inner):
        if files and all((place / inner / file).exists() for file in files):
            return place / inner
    return None


def _archives(source: Source, where: list[Path]) -> Iterator[Path]:
    for place, file in itertools.product(where, source.files):
        if file.archive and (place / file.name).is_file():
            yield place / file.name


def _unpacked(source: Source, place: Path, report: Report) -> Path | None:
    for archive in _archives(source, [place]):
        folder = _unpacked_folder(archive, source)
        build_once(folder, functools.partial(_unpack, archive, source, report))
        content = marked(source, folder)
        if content is None:
            raise ArtifactError(f"{archive} does not hold {' and '.join(source.markers)}", hint="download it again")
        return content
    return None


def _unpacked_folder(archive: Path, source: Source) -> Path:
    """Another archive under the same name must not find the old contents, nor another source in the same archive."""
    facts = archive.stat()
    what = "|".join(source.wanted) if source.download_folder else ""
    text = f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}{what}"
    return cache_dir() / source.folder / f"unpacked-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _unpack(archive: Path, source: Source, report: Report, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < source.on_disk:
        message = f"{cache_dir()} has {free} bytes free, unpacking {archive.name} takes about {source.on_disk}"
        raise RunError(message, hint=f"free some space or let ${ENVIRONMENT} name another folder")
    unpack(archive, folder, limit=source.unpacked, wanted=source.wanted, report=report)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a local copy. ``ok`` is None if nothing is published to compare with."""

    what: str
    ok: bool | None
    found: str
    expected: str


def verify(name: str, data_dir: Path | None = None, report: Callable[[str], None] = lambda what: None) -> list[Check]:
    """Compare the local copy of source ``name`` with all that is known about it; ArtifactError if there is none.

    report: called with the name of each file before it is read, which may take a while.
    """
    source = SOURCES[name]
    _, folder = find((name,), data_dir)
    present = [file for file in (*source.markers, *source.prepared) if (folder / file).exists()]
    checks = [Check(what=file, ok=True, found="present", expected="present") for file in present]
    where = [place for group in places(source, data_dir)[:-1] for place in group]  # Debian packs its copies anew
    checks += _verify_files(source, where, report)
    for file, published in source.contents.items():
        report(file)
        found = file_checksum(folder / file, published)
        checks.append(Check(what=file, ok=found == published, found=found, expected=published))
    counted = [
        *((pattern, number, "files", _count_files) for pattern, number in source.counts.items()),
        *((pattern, number, "lines", _count_lines) for pattern, number in source.lines.items()),
        *((file, number, "rows", _count_rows) for file, number in source.rows.items()),
    ]
    for what, number, unit, count in counted:
        report(what)
        expected = f"{number} {unit}"
        if _is_left_out(source, folder, what):
            checks.append(Check(what=what, ok=None, found="absent", expected=expected))
        else:
            found = count(folder, what)
            checks.append(Check(what=what, ok=found == number, found=f"{found} {unit}", expected=expected))
    return checks


def _is_left_out(source: Source, folder: Path, what: str) -> bool:
    """Whether ``what`` lies in a part of the data that no marker asks for and that is missing as a whole."""
    part = what.partition("/")[0]
    asked = any(marker.partition("/")[0] == part for marker in source.markers)
    return not (asked or glob.has_magic(part) or (folder / part).exists())


def _count_files(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _count_lines(folder: Path, pattern: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for path in folder.glob(pattern) for line in path.read_bytes().splitlines())


def _count_rows(folder: Path, file: str) -> int:
    return sum(1 for _ in read_rows(folder / file))


def _verify_files(source: Source, where: list[Path], report: Callable[[str], None]) -> Iterator[Check]:
    for file in source.files:
        path = next((place / file.name for place in where if (place / file.name).is_file()), None)
        if path is None:
            continue
        size = path.stat().st_size
        right = None if file.size is None else size == file.size
        expected = "unknown" if file.size is None else f"{file.size} bytes"
        yield Check(what=file.name, ok=right, found=f"{size} bytes", expected=expected)
        if file.checksum is not None:
            report(file.name)
            found = file_checksum(path, file.checksum)
            yield Check(what=file.name, ok=found == file.checksum, found=found, expected=file.checksum)


def file_checksum(path: Path, like: str) -> str:
    """The checksum of a file by the algorithm of ``like`` ("md5:..." or "sha256:...")."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{checksum(path, algorithm)}"


def read_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a tab-separated file; a field may stand in double quotes and then hold tabs and line breaks.

    A quote that is never closed would swallow all rows after it: ArtifactError.
    """
    csv.field_size_limit(CSV_FIELD_LIMIT)
    hint = f"mend the line, or get {path.name} again"
    reader = None
    with reading(path, hint="check the file's name and rights"):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.reader(itertools.chain(file, [f"{END}\t{END}"]), delimiter="\t")
                for row in reader:
                    if row == [END, END]:
                        return
                    if row and row[-1].endswith(END):
                        raise ArtifactError(f"{path} ends within a quoted field", hint=hint)
                    yield row
        except (csv.Error, UnicodeDecodeError) as error:
            line = f", line {reader.line_num}," if reader is not None and isinstance(error, csv.Error) else ""
            raise ArtifactError(f"{path}{line} is not a readable table: {error}", hint=hint) from None
