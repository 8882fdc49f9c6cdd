"""What tasks that draw their own data share: blocks in several processes, and files that keep large results.

A block is a fixed number of samples with a generator of its own, so neither the number of processes nor the number of
samples asked for changes any of them.
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attnprobe.errors import ArtifactError
from attnprobe.machine import cores
from attnprobe.tasks.sources.cache import build_once, cache_dir

S = TypeVar("S")
T = TypeVar("T")

LARGE = 10_000  # samples from which several processes draw them and a file keeps them
SETTINGS = "settings.json"


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
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, [settings] * len(blocks), blocks)


def keep(name: str, settings: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """The cache's folder for ``settings`` (plain data), filled by ``write(folder)`` the first time.

    Raises ArtifactError if the folder says that it was made with other settings.
    """
    text = json.dumps(settings, sort_keys=True)
    folder = cache_dir() / "generated" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def make(path: Path) -> None:
        path.mkdir()
        write(path)
        (path / SETTINGS).write_text(text, encoding="utf-8")

    build_once(folder, make)
    header = folder / SETTINGS
    if not header.is_file() or header.read_text(encoding="utf-8") != text:
        raise ArtifactError(f"{folder} was not made with the settings it is named after", hint="delete it")
    return folder


def read_kept(folder: Path, name: str) -> np.ndarray:
    """The array ``name`` of a kept folder, read when it is used; changes to it stay in memory."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is missing or damaged: {error}", hint=f"delete {folder}") from None
