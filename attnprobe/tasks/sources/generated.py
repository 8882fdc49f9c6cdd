"""What tasks that draw their own data share: blocks in several processes, and files that keep large results.

A block is a fixed number of samples with a generator of its own, so neither the number of processes nor the number of
samples asked for changes any of them.
"""

import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attnprobe.errors import ArtifactError
from attnprobe.files import checksum, read_json, reading
from attnprobe.machine import cores, end_with_parent
from attnprobe.tasks.sources.cache import build_once, cache_dir, discard

S = TypeVar("S")
T = TypeVar("T")

LARGE = 10_000  # samples from which several processes draw them and a file keeps them
SETTINGS, CHECKSUMS = "settings.json", "checksums.json"


def in_blocks(
    draw: Callable[[S, int], T], settings: S, blocks: Iterable[int], workers: int | None = None
) -> Iterator[T]:
    """``draw(settings, block)`` for every block, in order. draw is a module's function; settings can be pickled.

    workers: number of processes; None = one for each core this process may use.
    """
    blocks = list(blocks)
    workers = min(workers or cores(), len(blocks))
    if workers <= 1:
        yield from (draw(settings, block) for block in blocks)
        return
    # Forking a process that has run PyTorch can deadlock.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn, initializer=end_with_parent) as pool:
        yield from pool.map(draw, [settings] * len(blocks), blocks)


def keep(name: str, settings: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """The cache's folder for ``settings`` (plain data), filled by ``write(folder)`` the first time.

    Beside the arrays it holds the settings and a checksum of each array. A folder without checksums, which earlier
    versions left, is made anew. Raises ArtifactError if the folder says that it was made with other settings.
    """
    text = json.dumps(settings, sort_keys=True)
    folder = cache_dir() / "generated" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def make(path: Path) -> None:
        path.mkdir()
        write(path)
        sums = {file.name: checksum(file) for file in sorted(path.glob("*.npy"))}
        (path / CHECKSUMS).write_text(json.dumps(sums, indent=2), encoding="utf-8")
        (path / SETTINGS).write_text(text, encoding="utf-8")

    def is_ours() -> bool:
        return (folder / SETTINGS).is_file() and (folder / SETTINGS).read_bytes() == text.encode()

    if folder.exists() and not (folder / CHECKSUMS).exists() and is_ours():
        discard(folder)
    build_once(folder, make)
    if not is_ours():
        hint = f"move {folder} away, and it is made again"  # it may be a stranger's, so not: delete
        raise ArtifactError(f"{folder} was not made with the settings it is named after", hint=hint)
    return folder


def read_kept(folder: Path, name: str) -> np.ndarray:
    """The array ``name`` of a kept folder, read when it is used; changes to it stay in memory.

    ArtifactError if its bytes are not those that were written: they are compared when a process first opens them.
    """
    path = folder / f"{name}.npy"
    hint = f"delete {folder}, and it is made again"
    with reading(path, hint):
        facts = path.stat()
        sums = read_json(folder / CHECKSUMS, hint)
        if sums.get(path.name) != _known_checksum(path, facts.st_size, facts.st_mtime_ns, facts.st_ino):
            raise ArtifactError(f"{path} is damaged: its bytes are not those that were written", hint=hint)
        return np.load(path, mmap_mode="c", allow_pickle=False)


@functools.lru_cache
def _known_checksum(path: Path, *_facts: int) -> str:
    """Once per process and state of the file."""
    return checksum(path)
