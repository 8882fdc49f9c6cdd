"""What a page is made from: runs grouped into arms, what probes found on them, the check of the theory."""

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnprobe.comparison.differences import differing, flat
from attnprobe.comparison.sides import WITHIN_AN_ARM
from attnprobe.config import Table, read_toml
from attnprobe.errors import ArtifactError, AttnprobeError
from attnprobe.files import read_json, reading
from attnprobe.probes.proximity.probe import Proximity
from attnprobe.report.studies.render import OPENING
from attnprobe.report.studies.rows import CELLS
from attnprobe.run import from_table
from attnprobe.tasks import Outline
from attnprobe.training.saved.listing import ListedRun, arm_of, list_runs, named
from attnprobe.training.saved.run_directory import RunDirectory

Record = dict[str, Any]
MOST_WORDS = 2  # settings that tell arms apart in their names


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadRun:
    listed: ListedRun
    settings: Table
    manifest: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def folder(self) -> Path:
        return Path(self.listed.folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs that differ in nothing but the seed."""

    name: str
    task: str
    runs: Sequence[ReadRun]

    @property
    def finished(self) -> list[ReadRun]:
        return [run for run in self.runs if run.result is not None]

    def outline(self) -> Outline | None:
        """Of the data, as far as that can be said without reading them."""
        try:
            return from_table(self.runs[0].settings).task.outline()
        except AttnprobeError:  # settings of another version, or files that are not there
            return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probed:
    """The checkpoints of one run of an arm; or why they could not be measured."""

    arm: str
    folder: str
    results: dict[str, Proximity] = dataclasses.field(default_factory=dict)  # by the checkpoint's name
    records: Sequence[Record] = ()
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theory:
    """What ``theory verify`` found."""

    rows: Sequence[Record]
    verdict: str
    passed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadStudy:
    """What ``attnprobe study render`` wrote."""

    name: str
    scale: str
    date: str
    commit: str
    asked: int  # runs of the grid
    found: int  # those that are there
    cells: Sequence[Record]  # of cells.csv, as texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
    title: str
    command: str
    written: str  # ISO time
    listed: Sequence[ListedRun]  # all runs that were found, damaged ones too
    arms: Sequence[Arm]
    studies: Sequence[ReadStudy] = ()
    probed: Sequence[Probed] | None = None  # None: left out
    theory: Theory | None = None


def read_studies(paths: Sequence[Path]) -> dict[Path, ReadStudy]:
    """Of those folders that hold a rendered study, by folder; ArtifactError if one is damaged."""
    found = {}
    for path in paths:
        if not (path / "cells.csv").exists() or not (path / "manifest.json").exists():
            continue
        manifest = read_json(path / "manifest.json")
        if manifest.get("made by") != OPENING:
            continue
        with reading(path / "cells.csv"), (path / "cells.csv").open(encoding="utf-8", newline="") as file:
            said = [str(manifest[key]) for key in ("study", "scale", "date", "commit")]
            counts = {"asked": int(manifest["runs asked for"]), "found": int(manifest["runs found"])}
            cells = [{key: cell[key] for key in cell} for cell in csv.DictReader(file, strict=True)]
            if cells and not set(CELLS) <= cells[0].keys():
                raise ValueError("its heading is that of another file")
        name, scale, date, commit = said
        found[path] = ReadStudy(name=name, scale=scale, date=date, commit=commit, cells=cells, **counts)
    return found


def find_runs(paths: Sequence[Path], warn: Callable[[str], None]) -> list[ListedRun]:
    """All runs in these folders, each once; ArtifactError if there are none."""
    found = {Path(run.folder).resolve(): run for path in paths for run in list_runs(path, warn=warn)}
    if not found:
        names = ", ".join(map(str, paths))
        raise ArtifactError(f"there is no run in {names}", hint="give folders of runs; attnprobe runs shows them")
    return list(found.values())


def read_arms(listed: Sequence[ListedRun]) -> list[Arm]:
    """The runs that can be read, grouped by all settings but the seed; arms in the order of their first run."""
    groups: dict[str, list[ReadRun]] = {}
    for row in listed:
        if row.state == "damaged":
            continue
        directory = RunDirectory(Path(row.folder))
        try:
            settings = read_toml(directory.settings)
            run = ReadRun(
                listed=row, settings=settings, manifest=directory.read_manifest(), result=directory.read_result()
            )
        except ArtifactError:  # it has just begun
            continue
        groups.setdefault(repr(sorted(own_settings(run).items())), []).append(run)
    arms = list(groups.values())
    return [
        Arm(name=name, task=named(runs[0].settings, "task") or "?", runs=sorted(runs, key=lambda r: r.listed.seed or 0))
        for name, runs in zip(arm_names(arms), arms, strict=True)
    ]


def own_settings(run: ReadRun) -> dict[str, Any]:
    return {key: value for key, value in flat(run.settings).items() if key not in WITHIN_AN_ARM}


def arm_names(arms: Sequence[Sequence[ReadRun]]) -> list[str]:
    """What each does with its phases; where several do the same, the settings or the folders that tell them apart."""
    plain = [arm_of(runs[0].settings) for runs in arms]
    if len({named(runs[0].settings, "task") for runs in arms}) > 1:
        plain = [f"{named(runs[0].settings, 'task')}: {name}" for runs, name in zip(arms, plain, strict=True)]
    names = []
    for number, name in enumerate(plain):
        alike = [arms[n] for n, other in enumerate(plain) if other == name]
        names.append(name if len(alike) == 1 else f"{name}, {apart(arms[number], alike)}")
    return names


def apart(runs: Sequence[ReadRun], alike: Sequence[Sequence[ReadRun]]) -> str:
    """The settings of ``runs`` that are not those of all ``alike``; its folder where these are many."""
    tables = [own_settings(other[0]) for other in alike]
    own = own_settings(runs[0])
    keys = list(dict.fromkeys(row["key"] for table in tables for row in differing([own], [table])))
    if not 0 < len(keys) <= MOST_WORDS:
        return str(runs[0].folder.parent if len(runs) > 1 else runs[0].folder)
    return ", ".join(f"{key.rpartition('.')[2]} {own.get(key)}" for key in keys)
