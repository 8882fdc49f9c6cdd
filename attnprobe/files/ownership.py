"""Folders that attnprobe made: a marker tells them from a stranger's, and a lock keeps them to one writer at a time."""

import contextlib
import json
import os
import platform
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from attnprobe.errors import ConfigError
from attnprobe.files import to_json, write_text, writing

MARKER = ".attnprobe"
LOCK = ".attnprobe.lock"
PATIENCE = 0.3  # seconds; somebody may only be looking whether there is a writer
TEMPORARY = r"\.{name}\.[a-z0-9_]{{8}}"  # what a writer that was killed leaves of a file, see ``write_atomically``


class BusyError(ConfigError):
    """Another process writes there now."""


def mark(folder: Path, kind: str, **more: Any) -> None:
    """Say that attnprobe made this folder, what for, and which process writes there; makes the folder."""
    said = {"made by": "attnprobe", "kind": kind, "process": os.getpid(), "host": platform.node(), **more}
    write_text(folder / MARKER, to_json(said))


def read_marker(folder: Path) -> dict[str, Any]:
    """What ``mark`` said; empty if the folder is not ours."""
    try:
        said = json.loads((folder / MARKER).read_bytes()) if is_plain(folder / MARKER) else None
    except (OSError, ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) and said.get("made by") == "attnprobe" else {}


@contextlib.contextmanager
def held(folder: Path, kind: str) -> Iterator[None]:
    """Mark a folder as one of this ``kind`` and keep other writers out; ConfigError if it is another command's."""
    if os.path.lexists(folder / MARKER) and read_marker(folder).get("kind") != kind:
        raise ConfigError(f"{folder} is no folder of a {kind}", hint="choose another --out")
    with one_writer(folder):
        mark(folder, kind)
        yield


def is_plain(path: Path) -> bool:
    """Whether ``path`` is a file itself, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_temporary(path: Path, names: Iterable[str]) -> bool:
    """Whether ``path`` is what a killed writer of one of these files left."""
    return any(re.fullmatch(TEMPORARY.format(name=re.escape(name)), path.name) for name in names) and is_plain(path)


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to ``folder``, which is made; ConfigError if one does already.

    The operating system frees the lock when its holder ends, however that happens, so a lock is never stale.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 10)
        except filelock.Timeout:
            said = read_marker(folder)
            writer = f"process {said['process']} on {said['host']}" if {"process", "host"} <= set(said) else "a process"
            hint = "wait for it, stop it, or choose another --out"
            raise BusyError(f"{writer} is writing to {folder}", hint=hint) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def one_writer_of(file: Path) -> Iterator[None]:
    """The same of a single file, by a hidden lock beside it."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file.with_name(f".{file.name}.lock"))
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 10)
        except filelock.Timeout:
            hint = "wait for it, stop it, or give another name"
            raise BusyError(f"a process is writing to {file}", hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def check_no_writer(folder: Path) -> None:
    """ConfigError if another process writes to this folder; nothing is made."""
    if is_plain(folder / LOCK) and os.access(folder / LOCK, os.W_OK):
        with one_writer(folder):
            pass


def has_writer(folder: Path) -> bool:
    """Whether another process writes to this folder right now; nobody is waited for, and nothing is made."""
    if not (is_plain(folder / LOCK) and os.access(folder / LOCK, os.W_OK)):
        return False
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    return False
