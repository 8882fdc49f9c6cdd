"""The papers' numbers beside ours: which row of ``experiments/published.csv`` a place of a table stands for."""

import csv
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import attnprobe
from attnprobe.config import did_you_mean
from attnprobe.errors import ConfigError
from attnprobe.files import reading
from attnprobe.studies.study import Layout, Study

COLUMNS = ("paper", "table", "task", "model", "setting", "metric", "value")
PERCENT = "_%"  # how the metric of a row ends whose value is in percent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One number of a paper, as a share where it is a percentage there."""

    text: str  # as it stands in the table
    value: float | None  # None: no number, as "chance"
    where: str  # paper and table


def folder() -> Path:
    """Where this table and the studies of attnprobe are: in an installed package inside it, in a checkout beside it."""
    package = Path(attnprobe.__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def table_path() -> Path:
    return folder() / "published.csv"


def published(study: Study, layout: Layout, place: Mapping[str, str], *, where: str) -> Published | None:
    """What ``layout.published`` says of this place; None if it, or one of the place's choices, has no such number.

    where: what the table is called, for messages. Raises ConfigError unless exactly one row fits.
    """
    wanted = {column: _filled(study, template, place, where) for column, template in layout.published.items()}
    if not wanted or None in wanted.values():
        return None
    unknown = [column for column in wanted if column not in COLUMNS[:-1]]
    if unknown:
        reason = f"{where}.published.{unknown[0]} is no column of published.csv"
        raise ConfigError(reason, hint=did_you_mean(unknown[0], COLUMNS[:-1]))
    found = [row for row in rows(table_path()) if all(row[column] == text for column, text in wanted.items())]
    if len(found) != 1:
        said = ", ".join(f"{column} {text!r}" for column, text in wanted.items())
        raise ConfigError(
            f"{where}.published: {len(found)} rows of published.csv have {said}", hint=_hint(found, wanted)
        )
    return read(found[0])


def read(row: Mapping[str, str]) -> Published:
    text, where = row["value"], f"{row['paper']}, table {row['table']}"
    try:
        value = float(text)
    except ValueError:
        return Published(text=text, value=None, where=where)
    return Published(text=text, value=value / 100 if row["metric"].endswith(PERCENT) else value, where=where)


@functools.cache
def rows(path: Path) -> tuple[dict[str, str], ...]:
    """Of the table; ArtifactError if it is damaged."""
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its heading is not {','.join(COLUMNS)}")
        return tuple(reader)


def _filled(study: Study, template: str, place: Mapping[str, str], where: str) -> str | None:
    """The template with every {axis} replaced; None if a choice is in no published table."""
    names = re.findall(r"\{([^{}]*)\}", template)
    for axis in names:
        if axis not in place:
            raise ConfigError(f"{where}.published names no axis: {axis!r}", hint=did_you_mean(axis, place))
    texts = {axis: study.axes[axis][place[axis]].published for axis in names}
    if None in texts.values():
        return None
    return re.sub(r"\{([^{}]*)\}", lambda found: str(texts[found[1]]), template)


def _hint(found: list[dict[str, str]], wanted: Mapping[str, str | None]) -> str:
    if not found:
        return "compare with the file, letter by letter; a choice without ``published`` has no such number"
    free = [column for column in COLUMNS[:-1] if len({row[column] for row in found}) > 1 and column not in wanted]
    return f"they differ in {', '.join(free)}"
