"""Names of runs by content: equal settings are the same run, whichever arm of whichever study asks for it.

To say which settings a table stands for (defaults, what ``published`` turns on), the rooms behind ``attnprobe.run`` are
needed, which load torch. What they said is therefore kept in the store, for as long as no source file changes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attnprobe
from attnprobe.config import Table
from attnprobe.errors import ArtifactError
from attnprobe.files import read_json, to_json, write_text
from attnprobe.studies.plan.grid import Arm

DIGITS = 20  # of a key: far from any collision of some million runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What an arm's runs are, whatever their seed: hashes of all their settings."""

    own: str  # of the run that ends in the arm's last checkpoint
    pretraining: str | None  # of the run that it starts from
    last: str  # the phase of that last checkpoint: pretrained or finetuned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of the grid."""

    arm: Arm
    seed: int
    key: str
    pretraining: str | None  # the key of the run it starts from
    last: str

    def name(self) -> str:
        return f"{self.arm.name()}, seed {self.seed}"


def planned(arms: Sequence[Arm], seeds: Sequence[int], recording: float | None, memory: Path | None) -> list[Planned]:
    """The runs of all arms, seed after seed. recording: ``trajectory_every``; memory: a file that may hold, and
    will, what tables stand for."""
    found = contents([arm.table for arm in arms], recording, memory)
    return [
        Planned(
            arm=arm,
            seed=seed,
            key=key_of(content.own, seed),
            pretraining=None if content.pretraining is None else key_of(content.pretraining, seed),
            last=content.last,
        )
        for seed in seeds
        for arm, content in zip(arms, found, strict=True)
    ]


def key_of(content: str, seed: int) -> str:
    return digest([content, seed])


def contents(tables: Sequence[Table], recording: float | None, memory: Path | None) -> list[Content]:
    """What each table stands for. ConfigError, which names the setting, if it is no run."""
    written = [digest([table, recording]) for table in tables]
    version = sources()
    known = {} if memory is None else _remembered(memory, version)
    missing = {name: table for name, table in zip(written, tables, strict=True) if name not in known}
    if missing:
        from attnprobe.studies.plan.meaning import content_of

        known |= {name: content_of(table, recording) for name, table in missing.items()}
    if missing and memory is not None:
        kept = {name: dataclasses.asdict(content) for name, content in known.items()}
        write_text(memory, to_json({"sources": version, "contents": kept}, indent=None))
    return [known[name] for name in written]


def _remembered(memory: Path, version: str) -> dict[str, Content]:
    if not memory.exists():
        return {}
    try:
        said = read_json(memory)
        if said["sources"] != version:
            return {}
        return {name: Content(**content) for name, content in said["contents"].items()}
    except (ArtifactError, KeyError, TypeError, AttributeError):  # it is only a memory
        return {}


def sources() -> str:
    """Changes whenever a source file of attnprobe does."""
    package = Path(attnprobe.__file__).parent
    looks = [(str(path.relative_to(package)), (seen := path.stat()).st_size, seen.st_mtime_ns)
             for path in sorted(package.rglob("*.py"))]  # fmt: skip
    return digest([attnprobe.__version__, looks])


def digest(document: Any) -> str:
    """Of plain values; tables that differ in the order of their keys only are the same."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]
