"""Runs with a name: one TOML file each, whose first line is a comment that says what it is.

A preset that is another one with a few things changed says ``base = "listops"`` and gives what is different; so may a
file of one's own.
"""

from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from attnprobe.config import Table, did_you_mean, read_toml
from attnprobe.errors import ConfigError, shown

BASE = "base"  # the key that names the preset a table builds on


def descriptions() -> dict[str, str]:
    """Name -> one-line description of every preset."""
    return {name: file.read_text().splitlines()[0].lstrip("# ") for name, file in sorted(_files().items())}


def read_table(name_or_path: str) -> Table:
    """The TOML table of a preset, or of a file if the name ends in .toml, with what it takes from its base."""
    return _completed(_read(name_or_path), (name_or_path,))


def merged(base: Mapping[str, object], own: Mapping[str, object]) -> Table:
    """``own`` where it says something, else ``base``; choosing another ``name`` starts that table afresh."""
    result = dict(base)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(before, str) and isinstance(value, Mapping):
            before = {"name": before}  # a choice may be written as its name alone
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            fresh = value.get("name", before.get("name")) != before.get("name")
            result[key] = merged({} if fresh else before, value)
        else:
            result[key] = value
    return result


def _completed(table: Table, seen: tuple[str, ...]) -> Table:
    own = dict(table)
    base = own.pop(BASE, None)
    if base is None:
        return own
    if not isinstance(base, str) or base.endswith(".toml"):
        raise ConfigError(f"{BASE} must be the name of a preset, got {shown(base)}", hint="see attnprobe presets")
    if base in seen:
        raise ConfigError(f"presets build on each other in a circle: {' -> '.join([*seen, base])}", hint="end it")
    return merged(_completed(_read(base), (*seen, base)), own)


def _read(name_or_path: str) -> Table:
    """As it stands in the file."""
    if name_or_path.endswith(".toml"):
        return read_toml(Path(name_or_path))
    files = _files()
    if name_or_path not in files:
        hint = did_you_mean(name_or_path, files)
        raise ConfigError(f"unknown preset {name_or_path!r}", hint=f"{hint} (a file's name must end in .toml)")
    with resources.as_file(files[name_or_path]) as path:
        return read_toml(path)


def _files() -> dict[str, Traversable]:
    """Name -> file, in this folder and those below it."""
    return {file.name.removesuffix(".toml"): file for file in _below(resources.files(__name__))}


def _below(folder: Traversable) -> Iterator[Traversable]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry)
        elif entry.name.endswith(".toml"):
            yield entry
