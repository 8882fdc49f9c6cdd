"""Claiming a run directory: who may go there, and one writer at a time. A folder is ours if it bears our marker."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from attnprobe import run
from attnprobe.config import read_toml
from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError
from attnprobe.files import write_text
from attnprobe.files.ownership import (
    LOCK,
    MARKER,
    check_no_writer,
    is_folder,
    is_plain,
    is_temporary,
    mark,
    one_writer,
)
from attnprobe.run import RunConfig
from attnprobe.training.saved.replacing import MOVING, RUN, is_run, kept_in, move_back, own_files, set_aside, where_kept
from attnprobe.training.saved.run_directory import FILES, RunDirectory


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
            for half in kept_in(path, MOVING):
                move_back(path, half)
            continued = _continues(directory, config, resume=resume, overwrite=overwrite)
            if overwrite and is_run(path):
                set_aside(path)
            if is_run(path) or not continued:  # what another version left unmarked stays so
                mark(path, RUN)
            _remove_temporaries(path)
            if not continued:
                _write_settings(directory, config)
            yield continued
    except AttnprobeError as error:
        error.hint = "; ".join(filter(None, [error.hint, where_kept(path)]))
        raise


def keep_settings(directory: RunDirectory, config: RunConfig) -> None:
    """Write down what a run is continued with where that may differ from what it was started with."""
    if _saved_settings(directory).engine.on_nan != config.engine.on_nan:
        _write_settings(directory, config)


def _write_settings(directory: RunDirectory, config: RunConfig) -> None:
    write_text(directory.settings, tomli_w.dumps(run.to_table(config)))


def _saved_settings(directory: RunDirectory) -> RunConfig:
    return run.from_checkpoint_table(read_toml(directory.settings), str(directory.settings))


def _continues(directory: RunDirectory, config: RunConfig, *, resume: bool, overwrite: bool) -> bool:
    """Whether an earlier start of the same run would be continued; raises as ``check_claim`` says."""
    path, started = directory.path, directory.settings.exists()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file", hint="choose another folder with --out")
    if not path.exists() or _is_blank(path):
        return False
    _refuse_links(path)
    saved = directory.resume.exists() or directory.result.exists()
    if not is_run(path) and not (resume and started and saved):
        _refuse_strangers_folder(path, resume=resume, overwrite=overwrite)
    if overwrite:
        _keep_source(path, config)
        return False
    half_moved = bool(kept_in(path, MOVING))
    if not started and not half_moved:
        _refuse_nameless(path)
        return False  # killed before it had begun
    if not resume:
        hint = "--resume continues it, --overwrite replaces it, --out chooses another folder"
        raise ConfigError(f"{path} is not empty", hint=hint)
    if started:
        _check_same(directory, config)
    return True


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
    if own_files(path):
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
    for source in filter(None, (config.pretrained, config.model.score_profile)):
        if source.resolve().is_relative_to(path.resolve()):
            message = f"the run starts from {source}, which lies in the folder that --overwrite would replace"
            raise ConfigError(message, hint="choose another folder with --out")


def _check_same(directory: RunDirectory, config: RunConfig) -> None:
    if run.fingerprint(_saved_settings(directory)) != run.fingerprint(config):
        hint = "resume with the settings it was started with, or choose another --out"
        raise ConfigError(f"{directory.path} was started with other settings", hint=hint)


def _remove_temporaries(path: Path) -> None:
    """What killed writers left of the run's own files."""
    for name in FILES:
        folder = (path / name).parent
        for file in folder.glob(f".{Path(name).name}.*") if is_folder(folder) else ():
            if is_temporary(file, [Path(name).name]):
                file.unlink(missing_ok=True)
