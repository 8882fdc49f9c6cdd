"""Runs with a name: one TOML file each, whose first line is a comment that says what it is."""

from importlib import resources
from pathlib import Path

from attnprobe.config import Table, did_you_mean, read_toml
from attnprobe.errors import ConfigError


def descriptions() -> dict[str, str]:
    """Name -> one-line description of every preset."""
    files = sorted((f for f in resources.files(__name__).iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text().splitlines()[0].lstrip("# ") for f in files}


def read_table(name_or_path: str) -> Table:
    """The TOML table of a preset, or of a file if the name ends in .toml."""
    if name_or_path.endswith(".toml"):
        return read_toml(Path(name_or_path))
    if name_or_path not in descriptions():
        hint = did_you_mean(name_or_path, descriptions())
        raise ConfigError(f"unknown preset {name_or_path!r}", hint=f"{hint} (a file's name must end in .toml)")
    with resources.as_file(resources.files(__name__) / f"{name_or_path}.toml") as path:
        return read_toml(path)
