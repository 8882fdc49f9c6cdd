"""Earlier runs in a folder: kept aside while a new one takes their place, removed when it is finished.

Of a folder only files that a run writes are ever moved or removed; all else in it stays where it is. ``--overwrite``
moves the files of the earlier run into ``replaced-<n>`` inside, a whole run directory that can be moved anywhere.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnprobe.errors import AttnprobeError, RunError
from attnprobe.files import writing
from attnprobe.files.ownership import MARKER, is_folder, is_plain, mark, one_writer, read_marker
from attnprobe.training.saved.run_directory import EVENTS, FILES

RUN, REPLACED, MOVING = "run", "replaced run", "run that is being moved"  # kinds of marked folders


@contextlib.contextmanager
def set_aside_together(folders: Sequence[Path]) -> Iterator[None]:
    """What ``--overwrite`` does to the folders of several runs before the first of them begins.

    Else a run that has not begun when the others are interrupted would have the earlier one in its folder, and be
    continued as that. If an error leaves before any has begun, all earlier runs come back.
    """
    for path in folders:
        if is_run(path):
            with one_writer(path):
                for half in kept_in(path, MOVING):
                    move_back(path, half)
                set_aside(path)
    try:
        yield
    except AttnprobeError:
        if not any(own_files(path) for path in folders):
            for path in folders:
                for kept in kept_in(path, REPLACED)[-1:]:
                    move_back(path, kept)
        raise


def where_kept(path: Path) -> str:
    """A sentence about the runs that ``--overwrite`` has moved aside; empty if there are none."""
    kept = kept_in(path, REPLACED)
    if not kept:
        return ""
    what, back = ("the earlier run is", "it") if len(kept) == 1 else ("earlier runs are", "them")
    names, quoted = ", ".join(map(str, kept)), shlex.join(map(str, kept))
    return f"{what} kept in {names} until this one is finished; `mv {quoted} ELSEWHERE` brings {back} back"


def remove_kept(path: Path) -> None:
    """The new run is finished: remove the files of those it has replaced. What others put there stays."""
    for kept in kept_in(path, REPLACED):
        with contextlib.suppress(OSError):  # what cannot be removed costs space, not the run that is finished
            for file in own_files(kept):
                file.unlink()
            _remove_folders(kept)
            (kept / MARKER).unlink()
            _remove_empty(kept)


def is_run(path: Path) -> bool:
    return read_marker(path).get("kind") in (RUN, REPLACED)


def own_files(path: Path) -> list[Path]:
    """The files in ``path`` that a run writes; links and anything in a linked folder are not ours."""
    own = [path / name for name in FILES if "/" not in name or is_folder(path / "checkpoints")]
    own += path.glob(EVENTS) if is_folder(path / "tensorboard") else []
    return [file for file in own if is_plain(file)]


def kept_in(path: Path, kind: str) -> list[Path]:
    folders = sorted(path.glob("replaced-*"), key=_number) if path.is_dir() else []
    return [folder for folder in folders if is_folder(folder) and read_marker(folder).get("kind") == kind]


def _number(kept: Path) -> int:
    digits = kept.name.removeprefix("replaced-")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0


def set_aside(path: Path) -> None:
    """Move the run's files into a folder of their own; after a kill in between, ``move_back`` undoes it."""
    number = next(n for n in range(1, 10**6) if not os.path.lexists(path / f"replaced-{n}"))
    target = path / f"replaced-{number}"
    files = own_files(path)
    if not files:
        return
    try:
        with writing(path):
            target.mkdir()
            mark(target, MOVING)
            for file in files:
                _move(file, target / file.relative_to(path))
    except RunError:
        move_back(path, target)
        raise
    _remove_folders(path)
    mark(target, REPLACED)


def move_back(path: Path, half: Path) -> None:
    with writing(path):
        for file in own_files(half):
            _move(file, path / file.relative_to(half))
        (half / MARKER).unlink(missing_ok=True)
    _remove_folders(half)
    _remove_empty(half)


def _move(file: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    file.rename(target)


def _remove_folders(path: Path) -> None:
    """Those in which a run's files were, if nothing is left in them."""
    for name in ("checkpoints", "tensorboard"):
        _remove_empty(path / name)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: others have files there
        folder.rmdir()
