"""The file in which every finished replica is kept at once, so that a run that was stopped goes on where it was.

One JSON object a line: first what the replicas depend on, then what each said.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attnprobe
from attnprobe.calibration.outcomes import Outcome
from attnprobe.calibration.worlds import CLASSES, LENGTH, POPULATION, N, real_images
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files import parse_json, reading, to_json, writing
from attnprobe.training.saved.manifest import git_commit

CODE = (  # the rooms and files whose code the numbers come from
    "calibration",
    "capture",
    "models",
    "probes",
    "scores",
    "statistics",
    "objectives.py",
    "masking.py",
    "streams.py",
)
Key = tuple[str, int, str]  # cell, number of the replica, probe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    cell: str
    replica: int
    probe: str
    outcomes: tuple[Outcome, ...]
    seconds: float  # of processor time
    commit: str | None = None  # of the source tree that measured it; None outside git

    @property
    def key(self) -> Key:
        return self.cell, self.replica, self.probe

    def line(self) -> str:
        return to_json(dataclasses.asdict(self), indent=None) + "\n"

    @staticmethod
    def read(line: str) -> "Record":
        table = parse_json(line)
        outcomes = tuple(Outcome(**outcome) for outcome in table.pop("outcomes"))
        return Record(outcomes=outcomes, **table)


class Records:
    """All that is known so far; a file is continued if it was begun with the same seed by the same code."""

    def __init__(self, path: Path | None, *, seed: int) -> None:
        """path: None keeps nothing. ConfigError if the file is another's, or of other settings."""
        self.path, self.heading, self.commit = path, heading(seed), git_commit()
        self.known: dict[Key, Record] = {}
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self.known = {record.key: record for record in self._read(path)}
        else:
            self._append(to_json({"calibration": self.heading}, indent=None) + "\n")

    def add(self, records: Sequence[Record]) -> None:
        """Those that were just measured, by this source tree."""
        records = [dataclasses.replace(record, commit=self.commit) for record in records]
        self.known |= {record.key: record for record in records}
        if self.path is not None:
            self._append("".join(record.line() for record in records))

    def chosen(self, keys: Sequence[Key]) -> list[Record]:
        return [self.known[key] for key in keys if key in self.known]

    def commits(self, keys: Sequence[Key]) -> list[str]:
        """Those at which the records of these keys were measured, in the order of their first appearance: several where
        work went on after a commit that did not touch the code the numbers come from.
        """
        return list(dict.fromkeys(record.commit for record in self.chosen(keys) if record.commit is not None))

    def _read(self, path: Path) -> Iterator[Record]:
        with reading(path, "give --records another name"):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            begun = parse_json(lines[0])["calibration"]
        different = [name for name, value in self.heading.items() if begun.get(name) != value]
        if different:
            reason = f"{path} was begun with other {' and '.join(different)}"
            raise ConfigError(reason, hint="give --records another name, or remove the file")
        whole = [line for line in lines[1:] if line.endswith("\n")]
        if len(whole) < len(lines) - 1:  # a process was killed while it wrote
            with path.open("r+b") as file:
                file.truncate(sum(len(line.encode()) for line in [lines[0], *whole]))
        for line in whole:
            try:
                yield Record.read(line)
            except (TypeError, ValueError, KeyError) as error:
                hint = "give another file, or take this one away"
                raise ArtifactError(f"{path} holds a line that is no record: {error}", hint) from None

    def _append(self, text: str) -> None:
        assert self.path is not None
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def heading(seed: int) -> dict[str, Any]:
    """What the numbers depend on."""
    images = real_images()[2]
    return {
        "seed": seed, "sequences": N, "population": POPULATION, "length": LENGTH, "classes": CLASSES,
        "real data": images, "code": code(),
    }  # fmt: skip


def code() -> str:
    """A hash of the sources that the numbers come from."""
    root = Path(attnprobe.__file__).parent
    digest = hashlib.sha256()
    for name in CODE:
        place = root / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
