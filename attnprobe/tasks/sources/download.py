"""Downloading a source: continued where it broke off, mirrors in turn, checked before it counts. Never unasked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from attnprobe.errors import ArtifactError, RunError
from attnprobe.tasks.sources.cache import cache_dir, locked, writable
from attnprobe.tasks.sources.catalogue import File, Source
from attnprobe.tasks.sources.copies import file_checksum

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without an answer
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


def destination(source: Source, data_dir: Path | None) -> Path:
    return (data_dir or cache_dir()) / (source.download_folder or source.folder)


def needed(source: Source, data_dir: Path | None) -> list[File]:
    """The files that a download would have to bring, because they are absent or not what was published."""
    folder = destination(source, data_dir)
    return [file for file in source.files if not _is_right(folder / file.name, file)]


def fetch(source: Source, data_dir: Path | None = None, report: Report = lambda done, total: None) -> list[Path]:
    """Bring all files of a source to ``data_dir``/<folder> (default: the cache). Files that are right stay.

    A file without a published checksum is kept if it is there. Raises ArtifactError if no mirror delivers the file, and
    RunError if it cannot be written.
    """
    folder = destination(source, data_dir)
    paths: list[Path] = []
    for file in source.files:
        target = folder / file.name
        with locked(target), writable(folder):
            if not _is_right(target, file):
                done = _size(_part(target))
                _check_space(folder, file.name, (file.size or file.about) - done)
                _fetch_from_any(file, target, report)
        paths.append(target)
    return paths


def _is_right(path: Path, file: File) -> bool:
    if not path.exists():
        return False
    if file.checksum is not None:
        return file_checksum(path, file.checksum) == file.checksum
    return file.size is None or path.stat().st_size == file.size


def _check_space(folder: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(f"{folder} has {free} bytes free, {name} needs {needed}", hint="choose --data-dir")


def _fetch_from_any(file: File, target: Path, report: Report) -> None:
    pooch.get_logger().setLevel("ERROR")
    _set_aside(target)  # wrong, or we would not be here; pooch would keep it if it has no checksum
    part = _part(target)
    reasons: list[str] = []
    for url in file.urls:
        try:
            # pooch checks the checksum before it moves the file into place.
            pooch.retrieve(
                url,
                file.checksum,
                fname=target.name,
                path=target.parent,
                downloader=Resuming(part, file.size, report),  # pyright: ignore[reportArgumentType] - pooch's names
            )
            return
        except requests.exceptions.RequestException as error:
            reasons.append(_reason(error))
        except ValueError as error:
            reasons.append("wrong checksum" if "hash" in str(error) else str(error))
    hint = f"run the command again to go on, or put the file from {file.urls[0]} into {target.parent}"
    raise ArtifactError(f"could not download {file.name}: {'; '.join(dict.fromkeys(reasons))}", hint=hint)


def _part(target: Path) -> Path:
    """Where a file is collected until it is whole."""
    return target.with_name(f".{target.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _set_aside(target: Path) -> None:
    """Keep a file that is not what was published as NAME.other, NAME.other-2, ...: it may be somebody's own."""
    names = (target.with_name(f"{target.name}.other" + (f"-{n}" if n > 1 else "")) for n in range(1, 10**6))
    if os.path.lexists(target):
        target.rename(next(name for name in names if not os.path.lexists(name)))


def _reason(error: requests.exceptions.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {TIMEOUT} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "no connection to the server"


class Resuming:
    """A downloader for pooch that collects the file in ``part`` and asks the server only for what is missing there."""

    def __init__(self, part: Path, size: int | None, report: Report) -> None:
        self.part, self.size, self.report = part, size, report

    def __call__(self, url: str, output_file: str, caller: object, check_only: bool = False) -> None:
        done = _size(self.part)
        if done == 0 or done != self.size:
            self._download(url, done)
        size = self.part.stat().st_size
        shutil.move(self.part, output_file)  # whatever is wrong with it, the next attempt starts afresh
        if self.size is not None and size != self.size:
            raise ValueError(f"got {size} bytes instead of {self.size}")

    def _download(self, url: str, done: int) -> None:
        # identity: a length that counts the bytes of the file, not of a compressed copy of it
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if done and response.status_code == RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range") == f"bytes */{done}":
                    return None  # nothing is missing
                self.part.unlink()
                return self._download(url, 0)
            response.raise_for_status()
            done = done if response.status_code == PARTIAL_CONTENT else 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else self.size
            _check_space(self.part.parent, self.part.name, (total or 0) - done)
            with self.part.open("ab" if done else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    self.report(done, total)
        return None
