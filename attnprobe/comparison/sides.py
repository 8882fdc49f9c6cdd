"""What is compared: a checkpoint, a run, or all runs of an arm, with the records that lie beside them."""

import dataclasses
import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnprobe import run
from attnprobe.comparison.differences import flat, unlike
from attnprobe.config import Table, read_toml
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.listing import ListedRun, list_runs
from attnprobe.training.saved.run_directory import RunDirectory

WITHIN_AN_ARM = ("seed", "pretrained")  # settings that its runs need not share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One checkpoint, with what is known of the run that wrote it."""

    checkpoint: Path
    seed: int
    settings: Table
    manifest: dict[str, Any]  # empty where the checkpoint lies alone
    result: dict[str, Any] | None  # None where the checkpoint is not the one the result is of

    @property
    def untrained(self) -> bool:
        return self.settings.get("phase") == "init"

    @property
    def data(self) -> str | None:
        """The fingerprint of the data of its last phase, as far as recorded."""
        found = self.manifest.get("data_sha256")
        return list(found.values())[-1] if isinstance(found, dict) and found else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Runs that differ in nothing but the seed; one of them, if a single run or checkpoint was given."""

    name: str
    members: dict[int, Member]  # by seed


def read_side(given: str, *, warn: Callable[[str], None] = lambda text: None) -> Side:
    """A .pt file, a run directory, a folder of runs, or a pattern of such names ("demo/runs/scratch-s*").

    warn: hears of runs that are left out because they are not finished. ArtifactError if something cannot be read,
    ConfigError if the runs of a folder are of several kinds.
    """
    if Path(given).is_file() or Path(given).suffix == ".pt":
        member = of_checkpoint(Path(given))
        return Side(name=given, members={member.seed: member})
    paths = [Path(given)] if Path(given).exists() else list(map(Path, sorted(glob.glob(given))))
    if not paths:
        raise ArtifactError(f"{given} does not exist", hint="give a .pt file, a run's folder, or a folder of runs")
    if any(path.is_file() for path in paths):
        raise ConfigError(f"{given} names files", hint="a pattern names the folders of runs")
    rows = [row for path in paths for row in list_runs(path, warn=warn)]
    if len(paths) == 1 and rows and Path(rows[0].folder) == paths[0]:
        rows = rows[:1]  # a run itself; what may lie below it was not meant
    return Side(name=given, members=_members(given, _finished(given, rows, warn)))


def _finished(given: str, rows: list[ListedRun], warn: Callable[[str], None]) -> list[Path]:
    if len(rows) == 1 and rows[0].state != "finished":
        hint = rows[0].note or "finish it with --resume, or give one of its checkpoints"
        raise ArtifactError(f"{rows[0].folder} is {rows[0].state}", hint=hint)
    for row in rows:
        if row.state != "finished":
            warn(f"{row.folder} is {row.state} and left out")
    finished = [Path(row.folder) for row in rows if row.state == "finished"]
    if not finished:
        raise ArtifactError(f"there is no finished run in {given}", hint="attnprobe runs shows what is there")
    return finished


def _members(given: str, folders: list[Path]) -> dict[int, Member]:
    members: dict[int, Member] = {}
    for folder in folders:
        member = of_run(folder)
        if member.seed in members:
            raise ConfigError(f"{given} holds several runs of seed {member.seed}", hint="give the folder of one arm")
        members[member.seed] = member
    tables = [flat(member.settings) for member in members.values()]
    keys = sorted({key for table in tables[1:] for key in unlike(tables[0], table)} - set(WITHIN_AN_ARM))
    if keys:
        hint = "give one arm's folder, or a pattern in quotes such as 'runs/scratch-s*'"
        some = ", ".join(keys[:3]) + (" and more" if len(keys) > 3 else "")
        raise ConfigError(f"the runs in {given} differ in more than the seed: {some}", hint=hint)
    return dict(sorted(members.items()))


def of_run(folder: Path) -> Member:
    """The last checkpoint of a finished run."""
    directory = RunDirectory(folder)
    result, settings = directory.read_result(), read_toml(directory.settings)
    assert result is not None, "a run that is listed as finished has its result"
    return Member(
        checkpoint=directory.checkpoint(result["phase"]),
        seed=result["seed"],
        settings=settings | {"phase": result["phase"]},
        manifest=directory.read_manifest(),
        result=result,
    )


def of_checkpoint(path: Path) -> Member:
    """A checkpoint wherever it lies; beside its run, with the records of that."""
    checkpoint = load_checkpoint(path)
    directory = RunDirectory(path.resolve().parent.parent)
    beside = directory.settings.exists() and directory.checkpoint(checkpoint.phase).resolve() == path.resolve()
    result = directory.read_result() if beside else None
    return Member(
        checkpoint=path,
        seed=checkpoint.run.seed,
        settings=run.to_table(checkpoint.run) | {"phase": checkpoint.phase},
        manifest=directory.read_manifest() if beside else {},
        result=result if result is not None and result["phase"] == checkpoint.phase else None,
    )
