"""Claiming a run directory: who may go there, one writer at a time, an earlier run kept until it is replaced.

A folder is ours if it bears our marker. Of such a folder only files that a run writes are ever moved or removed; all
else in it stays where it is. ``--overwrite`` moves the files of the earlier run into ``replaced-<n>`` inside, a whole
run directory that can be moved anywhere, and removes them when the new run is finished.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomli_w

from attnprobe import run
from attnprobe.config import read_toml
from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError
from attnprobe.files import unwritable, write_text
from attnprobe.files.ownership import (
    LOCK,
    MARKER,
    check_no_writer,
    is_folder,
    is_plain,
    is_temporary,
    mark,
    one_writer,
    read_marker,
)
from attnprobe.run import RunConfig
from attnprobe.training.saved.run_directory import FILES, RunDirectory

RUN, REPLACED, MOVING = "run", "replaced run", "run that is being moved"  # kinds of marked folders


def check_claim(directory: RunDirectory, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Raise if a run of ``config`` may not go there. Changes nothing.

    ConfigError if the folder is taken, is no folder of ours, or another process writes there; ArtifactError if there is
    no run to be resumed.
    """
    _continues(directory, config, resume=resume, overwrite=overwrite)
    check_no_writer(directory.path)


@contextlib.contextmanager
def claimed(directory: RunDirectory, config: RunConfig, *, resume: bool, overwrite: bool) -> Iterator[bool]:
    """Hold the folder for a run of ``config``; yields whether an earlier start of the same run is continued.

    Raises as ``check_claim``. An error that leaves while an earlier run is kept says where that is.
    """
    path = directory.path
    _continues(directory, config, resume=resume, overwrite=overwrite)
    try:
        with one_writer(path):
            for half in _kept(path, MOVING):
                _move_back(path, half)
            continued = _continues(directory, config, resume=resume, overwrite=overwrite)
            if overwrite and _is_run(path):
                _set_aside(path)
            if _is_run(path) or not continued:  # what another version left unmarked stays so
                mark(path, RUN)
            _remove_temporaries(path)
            if not continued:
                write_text(directory.settings, tomli_w.dumps(run.to_table(config)))
            yield continued
    except AttnprobeError as error:
        error.hint = "; ".join(filter(None, [error.hint, where_kept(path)]))
        raise


@contextlib.contextmanager
def set_aside_together(folders: Sequence[Path]) -> Iterator[None]:
    """What ``--overwrite`` does to the folders of several runs before the first of them begins.

    Else a run that has not begun when the others are interrupted would have the earlier one in its folder, and be
    continued as that. If an error leaves before any has begun, all earlier runs come back.
    """
    for path in folders:
        if _is_run(path):
            with one_writer(path):
                for half in _kept(path, MOVING):
                    _move_back(path, half)
                _set_aside(path)
    try:
        yield
    except AttnprobeError:
        if not any(_own_files(path) for path in folders):
            for path in folders:
                for kept in _kept(path, REPLACED)[-1:]:
                    _move_back(path, kept)
        raise


def where_kept(path: Path) -> str:
    """A sentence about the runs that ``--overwrite`` has moved aside; empty if there are none."""
    kept = _kept(path, REPLACED)
    if not kept:
        return ""
    what, back = ("the earlier run is", "it") if len(kept) == 1 else ("earlier runs are", "them")
    names, quoted = ", ".join(map(str, kept)), shlex.join(map(str, kept))
    return f"{what} kept in {names} until this one is finished; `mv {quoted} ELSEWHERE` brings {back} back"


def remove_kept(path: Path) -> None:
    """The new run is finished: remove the files of those it has replaced. What others put there stays."""
    for kept in _kept(path, REPLACED):
        with contextlib.suppress(OSError):  # what cannot be removed costs space, not the run that is finished
            for file in _own_files(kept):
                file.unlink()
            _remove_empty(kept / "checkpoints")
            (kept / MARKER).unlink()
            _remove_empty(kept)


def _continues(directory: RunDirectory, config: RunConfig, *, resume: bool, overwrite: bool) -> bool:
    """Whether an earlier start of the same run would be continued; raises as ``check_claim`` says."""
    path, started = directory.path, directory.settings.exists()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file", hint="choose another folder with --out")
    if not path.exists() or _is_blank(path):
        return False
    _refuse_links(path)
    saved = directory.resume.exists() or directory.result.exists()
    if not _is_run(path) and not (resume and started and saved):
        _refuse_strangers_folder(path, resume=resume, overwrite=overwrite)
    if overwrite:
        _keep_source(path, config)
        return False
    half_moved = bool(_kept(path, MOVING))
    if not started and not half_moved:
        _refuse_nameless(path)
        return False  # killed before it had begun
    if not resume:
        hint = "--resume continues it, --overwrite replaces it, --out chooses another folder"
        raise ConfigError(f"{path} is not empty", hint=hint)
    if started:
        _check_same(directory, config)
    return True


def _is_run(path: Path) -> bool:
    return read_marker(path).get("kind") in (RUN, REPLACED)


def _is_blank(path: Path) -> bool:
    """Nothing there but what is left of an attempt that was killed before it could mark the folder."""
    return all(entry.name == LOCK or is_temporary(entry, (MARKER, *FILES)) for entry in path.iterdir())


def _refuse_strangers_folder(path: Path, *, resume: bool, overwrite: bool) -> None:
    if resume:
        raise ArtifactError(f"{path} holds no run to resume", hint="choose another --out")
    if overwrite:
        message = f"{path} is no run directory that attnprobe made (it has no {MARKER}), so it is not overwritten"
        raise ConfigError(message, hint="move it away, or choose another folder with --out")
    raise ConfigError(f"{path} is not empty", hint="choose another folder with --out")


def _refuse_nameless(path: Path) -> None:
    """A run whose settings were moved away is still a run; whose it is, nobody can tell."""
    if _own_files(path):
        message = f"{path} holds files of a run but not its run.toml"
        raise ConfigError(message, hint="put run.toml back, replace the run with --overwrite, or choose another --out")


def _refuse_links(path: Path) -> None:
    """What is written through a link, or over it, would be lost elsewhere."""
    if (path / "checkpoints").is_symlink():
        raise ConfigError(f"{path / 'checkpoints'} is a link, so nothing is written there", hint="choose another --out")
    for name in (MARKER, *FILES):
        if os.path.lexists(path / name) and not is_plain(path / name):
            raise ConfigError(f"{path / name} is no plain file, so it is not replaced", hint="choose another --out")


def _keep_source(path: Path, config: RunConfig) -> None:
    if config.pretrained is not None and config.pretrained.resolve().is_relative_to(path.resolve()):
        message = f"the run starts from {config.pretrained}, which lies in the folder that --overwrite would replace"
        raise ConfigError(message, hint="choose another folder with --out")


def _check_same(directory: RunDirectory, config: RunConfig) -> None:
    earlier = run.from_checkpoint_table(read_toml(directory.settings), str(directory.settings))
    if run.fingerprint(earlier) != run.fingerprint(config):
        hint = "resume with the settings it was started with, or choose another --out"
        raise ConfigError(f"{directory.path} was started with other settings", hint=hint)


def _own_files(path: Path) -> list[Path]:
    """The files in ``path`` that a run writes; links and anything in a linked folder are not ours."""
    own = [path / name for name in FILES if "/" not in name or is_folder(path / "checkpoints")]
    return [file for file in own if is_plain(file)]


def _kept(path: Path, kind: str) -> list[Path]:
    folders = sorted(path.glob("replaced-*"), key=_number) if path.is_dir() else []
    return [folder for folder in folders if is_folder(folder) and read_marker(folder).get("kind") == kind]


def _number(kept: Path) -> int:
    digits = kept.name.removeprefix("replaced-")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0


def _set_aside(path: Path) -> None:
    """Move the run's files into a folder of their own; after a kill in between, ``_move_back`` undoes it."""
    number = next(n for n in range(1, 10**6) if not os.path.lexists(path / f"replaced-{n}"))
    target = path / f"replaced-{number}"
    files = _own_files(path)
    if not files:
        return
    try:
        target.mkdir()
        mark(target, MOVING)
        for file in files:
            _move(file, target / file.relative_to(path))
    except OSError as error:
        _move_back(path, target)
        raise unwritable(path, error) from error
    _remove_empty(path / "checkpoints")
    mark(target, REPLACED)


def _move_back(path: Path, half: Path) -> None:
    try:
        for file in _own_files(half):
            _move(file, path / file.relative_to(half))
        (half / MARKER).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    _remove_empty(half / "checkpoints")
    _remove_empty(half)


def _move(file: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    file.rename(target)


def _remove_temporaries(path: Path) -> None:
    """What killed writers left of the run's own files."""
    for name in FILES:
        folder = (path / name).parent
        for file in folder.glob(f".{Path(name).name}.*") if is_folder(folder) else ():
            if is_temporary(file, [Path(name).name]):
                file.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: others have files there
        folder.rmdir()
