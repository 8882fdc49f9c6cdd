"""Finding the local copy of a source, unpacking it, and telling whether it is the right one."""

import csv
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from attnprobe.errors import ArtifactError
from attnprobe.tasks.sources.archives import unpack
from attnprobe.tasks.sources.cache import build_once, cache_dir
from attnprobe.tasks.sources.catalogue import SOURCES, Source

SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages put their files
CSV_FIELD_LIMIT = 1 << 24


def places(source: Source, data_dir: Path | None) -> list[Path]:
    """Where a copy may lie: the user's folder, a folder of the source's name in it, the cache, and the system's.

    ArtifactError if the user's folder does not exist: a copy elsewhere should not be taken for theirs.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise ArtifactError(f"there is no folder {data_dir}", hint="--data-dir must name one")
    mine = [data_dir, data_dir / source.folder] if data_dir else []
    return [*mine, cache_dir() / source.folder, SYSTEM_FOLDER / source.folder]


def status(name: str, data_dir: Path | None = None) -> Literal["ready", "packed", "absent"]:
    """Whether a local copy can be read at once, lies there as an archive, or is missing. Touches nothing."""
    source = SOURCES[name]
    where = places(source, data_dir)
    archives = [place / file.name for place in where for file in source.files if file.archive]
    archives = [archive for archive in archives if archive.is_file()]
    if any(marked(source, place) for place in [*where, *(_unpacked_folder(archive, source) for archive in archives)]):
        return "ready"
    return "packed" if archives else "absent"


def locate(names: Sequence[str], data_dir: Path | None) -> tuple[str, Path] | None:
    """The first of the named sources that has a copy, and the folder with its markers; archives are unpacked once."""
    for place in places(SOURCES[names[0]], data_dir):
        for name in names:
            folder = marked(SOURCES[name], place) or _unpacked(SOURCES[name], place)
            if folder is not None:
                return name, folder
    return None


def find(names: Sequence[str], data_dir: Path | None) -> tuple[str, Path]:
    """``locate``, or an ArtifactError that says where it looked and what to do."""
    found = locate(names, data_dir)
    if found is None:
        first = SOURCES[names[0]]
        where = places(first, data_dir)
        looked = _incomplete(names, where) or f"looked in {', '.join(map(str, where))}"
        wanted = " or ".join(file.name for name in names for file in SOURCES[name].files if file.archive)
        missing = wanted or " and ".join(first.markers)
        hint = (
            f"run `attnprobe data fetch {names[0]}`, or put {missing} into {cache_dir() / first.folder}; {first.note}"
        )
        raise ArtifactError(f"no complete copy of {first.title.split(':')[0]}: {looked}", hint=hint.rstrip("; "))
    return found


def _incomplete(names: Sequence[str], where: list[Path]) -> str:
    """Which folder holds a part of one of the sources, and what it lacks; "" if none does."""
    for folder, source in ((place / inner, SOURCES[n]) for n in names for place in where for inner in SOURCES[n].inner):
        missing = [marker for marker in source.markers if not (folder / marker).exists()]
        if len(missing) < len(source.markers):
            return f"{folder} lacks {', '.join(missing)}"
    return ""


def marked(source: Source, place: Path) -> Path | None:
    """The folder at or below ``place`` that holds all the source's markers."""
    for inner in source.inner:
        if all((place / inner / marker).exists() for marker in source.markers):
            return place / inner
    return None


def _unpacked(source: Source, place: Path) -> Path | None:
    for file in source.files:
        archive = place / file.name
        if file.archive and archive.is_file():
            folder = _unpacked_folder(archive, source)
            build_once(folder, functools.partial(_unpack, archive, source))
            content = marked(source, folder)
            if content is None:
                raise ArtifactError(f"{archive} does not hold {' and '.join(source.markers)}", hint="download it again")
            return content
    return None


def _unpacked_folder(archive: Path, source: Source) -> Path:
    """Another archive under the same name must not find the old contents."""
    facts = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()}|{facts.st_size}|{facts.st_mtime_ns}".encode()).hexdigest()[:12]
    return cache_dir() / source.folder / f"unpacked-{key}"


def _unpack(archive: Path, source: Source, folder: Path) -> None:
    unpack(archive, folder, limit=source.unpacked, wanted=source.wanted)


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
    checks = [Check(what=marker, ok=True, found="present", expected="present") for marker in source.markers]
    checks += _verify_files(source, places(source, data_dir)[:-1], report)  # Debian packs its copies anew
    for file, checksum in source.contents.items():
        report(file)
        found = file_checksum(folder / file, checksum)
        checks.append(Check(what=file, ok=found == checksum, found=found, expected=checksum))
    for pattern, number in source.counts.items():
        report(pattern)
        count = sum(1 for _ in folder.glob(pattern))
        checks.append(Check(what=pattern, ok=count == number, found=f"{count} files", expected=f"{number} files"))
    for file, number in source.rows.items():
        report(file)
        count = sum(1 for _ in read_rows(folder / file))
        checks.append(Check(what=file, ok=count == number, found=f"{count} rows", expected=f"{number} rows"))
    return checks


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
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def read_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a tab-separated file; a field may stand in double quotes and then hold tabs and line breaks."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file, delimiter="\t")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not a readable table: {error}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
