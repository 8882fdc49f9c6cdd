"""Strict translation between TOML tables and frozen dataclasses. Knows no type of attnprobe's own.

A field may be int, float, bool, str, Path, a Literal, ``X | None``, ``tuple[X, ...]``, another dataclass, or one of
several dataclasses: then its metadata holds ``choices``, a dict from name to dataclass, and the TOML table picks one by
its ``name`` key. Unknown keys and wrong types are errors that name the full key and suggest the nearest match.
"""

import dataclasses
import difflib
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from attnprobe.errors import ArtifactError, ConfigError

T = TypeVar("T")
Table = dict[str, Any]

ENVIRONMENT = "ATTNPROBE_SET"


def build(cls: type[T], table: Mapping[str, Any], key: str = "") -> T:
    """Make a ``cls`` from a TOML table; ``key`` is where the table stands, for messages."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    hints = typing.get_type_hints(cls)
    for name in table:
        if name not in fields:
            raise ConfigError(f"unknown setting {_join(key, name)!r}", hint=did_you_mean(name, fields))
    values = {name: _convert(table[name], fields[name], hints[name], _join(key, name)) for name in table}
    required = [f.name for f in fields.values() if _is_required(f) and f.name not in values]
    if required:
        raise ConfigError(f"{_join(key, required[0])} is missing")
    try:
        return cls(**values)
    except ConfigError as error:  # raised by the class's own checks, which do not know where the table stands
        raise ConfigError(_join(key, str(error)), hint=error.hint) from None


def require(condition: bool, field: str, message: str, hint: str = "") -> None:
    """For ``__post_init__``: refuse a value, naming the field first."""
    if not condition:
        raise ConfigError(f"{field} {message}", hint=hint)


def require_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value > 0, name, f"must be greater than zero, got {value}")


def dump(config: Any) -> Table:
    """The inverse of ``build``: plain tables, strings and numbers; fields that are None are left out."""
    table: Table = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            choices = field.metadata.get("choices")
            value = ({"name": choice_name(choices, value)} if choices else {}) | dump(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        table[field.name] = value
    return table


def choice_name(choices: Mapping[str, type], value: Any) -> str:
    return next(name for name, cls in choices.items() if type(value) is cls)


def read_toml(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not valid TOML: {error}") from None


def override(table: Table, assignments: Iterable[str]) -> Table:
    """Apply ``section.key=value`` assignments; choosing another ``name`` starts that table afresh."""
    result = _copy(table)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        keys = [part.strip() for part in dotted.split(".")]
        if not equals or not all(keys):
            raise ConfigError(f"cannot read the setting {assignment!r}", hint="write -s section.key=value")
        target = result
        for part in keys[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{dotted} is not a setting: {part} holds a single value")
        value = _parse_value(text.strip())
        if keys[-1] == "name" and target.get("name") != value:
            target.clear()
        target[keys[-1]] = value
    return result


def environment_assignments() -> list[str]:
    """Assignments from the environment variable ATTNPROBE_SET, separated by blanks."""
    return os.environ.get(ENVIRONMENT, "").split()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _convert(value: Any, field: dataclasses.Field[Any], hint: Any, key: str) -> Any:
    choices: Mapping[str, type] | None = field.metadata.get("choices")
    if choices is None:
        return _convert_to(value, hint, key)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ConfigError(f"{key}.name is missing", hint=f"choose from {', '.join(choices)}")
    if value["name"] not in choices:
        raise ConfigError(f"unknown {key} {value['name']!r}", hint=did_you_mean(value["name"], choices))
    return build(choices[value["name"]], {k: v for k, v in value.items() if k != "name"}, key)


def _convert_to(value: Any, hint: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_to_union(value, arguments, key)
    if origin is Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), list(map(str, arguments)), n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{key} cannot be {value!r}; choose from {', '.join(map(repr, arguments))}", hint=hint)
        return value
    if origin is tuple:
        return _convert_to_tuple(value, arguments, key)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is a section, not a single value", hint=f"write {key}.<setting>=...")
        return build(typing.cast(type, hint), value, key)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} must be a finite number, got {value}")
    if type(value) is not hint:  # bool is an int to isinstance, but not to a person
        raise ConfigError(f"{key} must be {_describe(hint)}, got {value!r}")
    return value


def _convert_to_union(value: Any, arguments: tuple[Any, ...], key: str) -> Any:
    kinds = [a for a in arguments if a is not type(None)]
    for kind in kinds:
        if type(value) is kind:
            return value
    errors: list[ConfigError] = []
    for kind in kinds:
        try:
            return _convert_to(value, kind, key)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(f"{key} must be {' or '.join(_describe(k) for k in kinds)}, got {value!r}", hint=errors[0].hint)


def _convert_to_tuple(value: Any, arguments: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key} must be a list, got {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{key} must have {len(arguments)} entries, got {len(value)}")
    return tuple(_convert_to(v, a, f"{key}[{i}]") for i, (v, a) in enumerate(zip(value, arguments, strict=True)))


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return words.get(hint, str(hint))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _parse_value(text: str) -> Any:
    """Read a value as TOML would; bare words are text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(table: Table) -> Table:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in table.items()}


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
