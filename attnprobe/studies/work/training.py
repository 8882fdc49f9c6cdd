"""One run of a study, carried out in whatever process: begun, continued, done again if damaged, or left to others."""

import dataclasses
from pathlib import Path
from typing import Any

from attnprobe import run
from attnprobe.errors import ArtifactError, ConfigError, explain
from attnprobe.files.ownership import BusyError
from attnprobe.launch.signals import stop_on_signal
from attnprobe.launch.trajectory import writer_for
from attnprobe.machine import choose_device
from attnprobe.run import RunConfig
from attnprobe.studies.plan.meaning import records
from attnprobe.studies.store.folder import STUDY, Store
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.monitor import Silent
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.replacing import is_run, own_files
from attnprobe.training.saved.run_directory import RunDirectory
from attnprobe.training.updates.allocator import keep_freed_memory

SEQUENCES = 32  # that a trajectory is measured on, as --probe-sequences has it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The work of a job: can be pickled, and leaves a run that ``Store.result`` calls finished."""

    store: Store
    key: str
    name: str
    config: RunConfig  # with its seed; without the path of the checkpoint it starts from
    source: "Training | None" = None  # the run whose checkpoint that is
    recording: float | None = None  # as ``trajectory_every``
    device: str = "auto"
    data_dir: Path | None = None

    def __call__(self) -> None:
        """Interrupted if it was asked to stop and has saved; BusyError if another process is at it.

        Any other error is recorded as the reason why it failed, and raised.
        """
        keep_freed_memory()
        try:
            self._train()
        except (Interrupted, BusyError):
            raise
        except Exception as error:
            known = explain(error)
            self.store.note_failure(self.key, self.name, known)
            raise known from error
        self.store.forget_failure(self.key)

    def _train(self) -> None:
        damage = self.damage()
        if damage == "" and self.store.result(self.key) is not None:
            return
        try:
            self._execute(again=bool(damage))
        except ArtifactError:
            if self.source is None or self.source.can_be_opened():
                raise
            self.source._execute(again=True)
            self._execute(again=bool(damage))

    def damage(self) -> str:
        """What is wrong with a run that was finished; empty if nothing is, or if it was not finished."""
        try:
            if self.store.result(self.key) is None:
                return ""
        except ArtifactError as error:
            return str(error)
        missing = missing_checkpoints(self.store, self.key)
        return f"{self.store.run(self.key)} lacks {', '.join(missing)}" if missing else ""

    def can_be_opened(self) -> bool:
        """Whether others can start from its checkpoint."""
        try:
            load_checkpoint(self.checkpoint())
        except ArtifactError:
            return False
        return True

    def checkpoint(self) -> Path:
        """The one that others start from."""
        return self.store.checkpoint(self.key, "pretrained").resolve()

    def _execute(self, *, again: bool) -> None:
        """again: what is there is damaged; it is kept aside until it is replaced, with all that is not ours left."""
        folder = self.store.run(self.key)
        config = run.resolved(self.config)
        if self.source is not None:
            config = dataclasses.replace(config, pretrained=self.source.checkpoint())
        if not again:
            try:
                self._launch(config, folder, resume=True)
            except BusyError:
                raise
            except (ArtifactError, ConfigError):
                if not is_run(folder) or not own_files(folder):  # nothing of ours that could be to blame
                    raise
                again = True
        if again:
            self._launch(config, folder, overwrite=True)
        directory = RunDirectory(folder)
        sizes = {name: Path(path).stat().st_size for name, path in directory.checkpoints().items()}
        directory.amend_manifest(STUDY, {"key": self.key, "checkpoints": sizes})

    def _launch(self, config: RunConfig, folder: Path, **claim: bool) -> None:
        watch = None
        if self.recording is not None and records(config):
            watch = writer_for(config, folder, factor=self.recording, sequences=SEQUENCES)
        with stop_on_signal() as stop:
            execute(
                config,
                folder,
                device=choose_device(self.device),
                monitor=Silent(),
                data_dir=self.data_dir,
                watch=watch,
                should_stop=stop.is_set,
                **claim,
            )


def missing_checkpoints(store: Store, key: str) -> list[str]:
    """Names of checkpoints that a finished run had and has no longer, or not whole."""
    directory = RunDirectory(store.run(key))
    said = directory.read_manifest().get(STUDY, {})
    sizes: dict[str, Any] = said.get("checkpoints", {}) if isinstance(said, dict) else {}
    found = {name: Path(path).stat().st_size for name, path in directory.checkpoints().items()}
    return [name for name, size in sizes.items() if found.get(name) != size]
