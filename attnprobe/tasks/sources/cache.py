"""One folder for everything that was downloaded, unpacked or generated; several processes may share it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import platformdirs

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files import writing
from attnprobe.files.ownership import MARKER, is_folder, mark, read_marker

ENVIRONMENT = "ATTNPROBE_DATA"
ENTRY, REMAINS = "cache entry", "unfinished cache entry"  # kinds of marked folders
MOST_FILES = 1000  # whose names a marker keeps


def cache_dir() -> Path:
    """``$ATTNPROBE_DATA`` if it is set, else the user's cache folder of this operating system.

    ConfigError if the variable starts with ~ and a name that no user has.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if not chosen:
        return platformdirs.user_cache_path("attnprobe")
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise ConfigError(f"${ENVIRONMENT} names the home of nobody: {chosen}", hint="give a whole path") from None


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Wait until no other process works on ``target``, and keep the others waiting meanwhile."""
    with writable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.parent / f".{target.name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def writable(folder: Path) -> contextlib.AbstractContextManager[None]:
    """``writing`` below the cache or a folder of data."""
    return writing(folder, hint=f"free some space or let ${ENVIRONMENT} name another folder")


def build_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Have ``make`` create the file or folder ``target``, unless it is there; it appears whole or not at all.

    ``make`` writes to a scratch path beside the target, which one rename moves into place. What killed processes left
    behind is removed by the next builder, who alone holds the lock.
    """
    if target.exists():
        return target
    with locked(target), writable(target.parent):
        if target.exists():
            return target
        _remove_remains(target)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            mark(scratch, REMAINS)
            make(scratch / "content")
            if (scratch / "content").is_dir():
                files = sorted(path.name for path in (scratch / "content").iterdir())
                mark(scratch / "content", ENTRY, files=files[:MOST_FILES])
            (scratch / "content").rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def discard(target: Path) -> None:
    """Remove a folder that ``build_once`` made, so that it is made again; who reads its files may go on doing so.

    ArtifactError if it holds anything that ``build_once`` did not put there.
    """
    with locked(target), writable(target.parent):
        known = {MARKER, *read_marker(target).get("files", ())}
        foreign = sorted(path.name for path in target.iterdir() if path.name not in known) if target.exists() else []
        if foreign or target.is_symlink():
            what = f"it holds {', '.join(foreign[:3])}, which attnprobe did not write" if foreign else "it is a link"
            raise ArtifactError(f"{target} is damaged but not removed: {what}", hint="move it away and try again")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            target.rename(target.parent / f".{target.name}-old-{os.getpid()}")
        _remove_remains(target)


def _remove_remains(target: Path) -> None:
    """What killed builders left: folders beside the target that bear our marker, or are still empty."""
    for remains in target.parent.glob(f".{target.name}-*"):
        if is_folder(remains) and read_marker(remains).get("kind") in (ENTRY, REMAINS):
            shutil.rmtree(remains, ignore_errors=True)
        elif is_folder(remains):
            with contextlib.suppress(OSError):  # not empty: not ours
                remains.rmdir()
