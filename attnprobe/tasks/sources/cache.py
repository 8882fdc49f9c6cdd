"""One folder for everything that was downloaded, unpacked or generated; several processes may share it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import platformdirs

from attnprobe.errors import RunError

ENVIRONMENT = "ATTNPROBE_DATA"


def cache_dir() -> Path:
    """``$ATTNPROBE_DATA`` if it is set, else the user's cache folder of this operating system."""
    chosen = os.environ.get(ENVIRONMENT)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("attnprobe")


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


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about a full disk or a forbidden folder into one line."""
    try:
        yield
    except OSError as error:
        hint = f"free some space or let ${ENVIRONMENT} name another folder"
        raise RunError(f"cannot write to {folder}: {error.strerror or error}", hint=hint) from None


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
        for remains in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(remains, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            make(scratch / "content")
            (scratch / "content").rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def discard(target: Path) -> None:
    """Remove a folder that ``build_once`` made, so that it is made again; who reads its files may go on doing so."""
    with locked(target), writable(target.parent):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            target.rename(target.parent / f".{target.name}-old-{os.getpid()}")
        for remains in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(remains, ignore_errors=True)
