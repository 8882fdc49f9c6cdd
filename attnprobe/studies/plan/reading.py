"""Studies by name or path: found, read, and made whole for one scale."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnprobe import config, presets
from attnprobe.config import Table, did_you_mean
from attnprobe.errors import ConfigError
from attnprobe.studies.plan.checks import check, check_texts
from attnprobe.studies.published import folder
from attnprobe.studies.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A study's file as it was read and checked at all of its scales."""

    name: str
    path: Path
    table: Table
    study: Study

    def scale(self, name: str | None) -> str:
        """``name`` if there is such a scale, the first one for None; ConfigError for others."""
        if name is None:
            return next(iter(self.study.scales))
        if name not in self.study.scales:
            hint = did_you_mean(name, self.study.scales)
            raise ConfigError(f"study {self.name} has no scale {name!r}", hint=hint)
        return name

    def at(self, scale: str) -> Study:
        """The study with what this scale changes in its axes and in what is tuned."""
        return at_scale(self.table, scale)


def names() -> list[str]:
    """Of the studies that come with attnprobe."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def read(name_or_path: str) -> Source:
    """A study by its name, or by the path of a file if that ends in .toml.

    ConfigError, one line, for whatever cannot be carried out as it stands.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        known = names()
        if name_or_path not in known:
            hint = f"{did_you_mean(name_or_path, known)} (a file's name must end in .toml)"
            raise ConfigError(f"unknown study {name_or_path!r}", hint=hint)
        path = folder() / f"{name_or_path}.toml"
    table = config.read_toml(path)
    try:
        check_texts(table)
        study = config.build(Study, table)
        for scale in study.scales:
            check(at_scale(table, scale), scale)
    except ConfigError as error:
        hint = error.hint if config.SEE not in error.hint else "see experiments/README.md"
        raise ConfigError(f"{path}: {error}", hint=hint) from None
    return Source(name=path.stem, path=path, table=table, study=study)


def at_scale(table: Mapping[str, Any], name: str) -> Study:
    """See ``Source.at``. A choice of the scale is merged into the study's choice of the same name, or is a new one."""
    scale = table["scales"][name]
    whole = dict(table) | {"axes": presets.merged(table.get("axes", {}), scale.get("axes", {}))}
    if "tune" in scale:
        whole["tune"] = scale["tune"]
    return config.build(Study, whole)
