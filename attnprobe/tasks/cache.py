"""One folder for everything that was downloaded, unpacked or generated; several processes may share it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import platformdirs
import torch

from attnprobe.config import dump
from attnprobe.errors import ArtifactError, RunError
from attnprobe.tasks.data import Data, Spec, Split, Task

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


def load_task(name: str, task: Task, data_dir: Path | None = None) -> Data:
    """The task's data: from the copy that ``store_task`` made of these very settings if there is one, else afresh."""
    path = stored_path(name, task)
    return read_stored(path) if path.exists() else task.load(data_dir)


def store_task(name: str, task: Task) -> Path:
    """Generate the task's data once and keep them in the cache."""
    return build_once(stored_path(name, task), lambda path: write_stored(path, task.load()))


def stored_path(name: str, task: Task) -> Path:
    """Named after the settings and the source code of all tasks: no data outlive the generator that made them."""
    digest = hashlib.sha256(json.dumps(dump(task), sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return cache_dir() / "generated" / f"{name}-{digest.hexdigest()[:16]}.pt"


def write_stored(path: Path, data: Data) -> None:
    splits = {name: vars(split) for name, split in data.splits().items()}
    torch.save({"spec": dataclasses.asdict(data.spec), "splits": splits, "notes": data.notes}, path)


def read_stored(path: Path) -> Data:
    try:
        # Mapped, not read: processes that load the same data share one copy in memory.
        content = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        splits = {name: Split(**split) for name, split in content["splits"].items()}
        return Data(spec=Spec(**content["spec"]), notes=content["notes"], **splits)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"{path} is damaged: {reason}", hint="delete it and generate the data again") from None
