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

from attnprobe.errors import ConfigError, shown
from attnprobe.files import DEEPEST, check_plain, reading

T = TypeVar("T")
Table = dict[str, Any]

ENVIRONMENT = "ATTNPROBE_SET"
MOST_CHARACTERS = 2**20  # of a file of settings
SEE = "see attnprobe settings"


def build(cls: type[T], table: Mapping[str, Any], key: str = "") -> T:
    """Make a ``cls`` from a TOML table; ``key`` is where the table stands, for messages."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    hints = typing.get_type_hints(cls)
    for name in table:
        if name not in fields:
            raise ConfigError(f"unknown setting {shown(_join(key, name))}", hint=did_you_mean(name, fields))
    values: Table = {}
    for name, value in table.items():
        try:
            values[name] = _convert(value, fields[name], hints[name], _join(key, name))
        except ConfigError as error:
            raise ConfigError(str(error), hint=_with_default(error.hint, fields[name])) from None
    required = [f.name for f in fields.values() if _is_required(f) and f.name not in values]
    if required:
        missing = fields[required[0]]
        choices = missing.metadata.get("choices")
        hint = f"choose from {', '.join(choices)}" if choices else f"it is {_describe(hints[missing.name])}"
        if typing.get_origin(hints[missing.name]) is dict:
            hint = f"give at least one, like [{_join(key, missing.name)}.NAME]"
        raise ConfigError(f"{_join(key, missing.name)} is missing", hint=hint)
    try:
        return cls(**values)
    except ConfigError as error:  # raised by the class's own checks, which do not know where the table stands
        hint = _with_default(error.hint, fields.get(str(error).partition(" ")[0]))
        raise ConfigError(_join(key, str(error)), hint=hint) from None


def require(condition: bool, field: str, message: str, hint: str = "") -> None:
    """For ``__post_init__``: refuse a value, naming the field first."""
    if not condition:
        raise ConfigError(f"{field} {message}", hint=hint)


def require_positive(config: Any, *names: str) -> None:
    """Of fields that may also be None, where they are not."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, name, f"must be greater than zero, got {value}")


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
    """A table of settings; ArtifactError if the file is missing or no TOML of moderate size and depth."""
    with reading(path, hint="settings are TOML: lines like d_model = 64 below headings like [model]"):
        with path.open(encoding="utf-8-sig") as file:  # some editors put a mark before the first line
            text = file.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters, which no settings need")
        try:
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ValueError(f"it is not valid TOML: {_first_line(error)}") from error
        check_plain(table)
        return table


def override(table: Table, assignments: Iterable[str]) -> Table:
    """Apply ``section.key=value`` assignments; choosing another ``name`` starts that table afresh."""
    result = _copy(table)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        keys = [part.strip() for part in dotted.split(".")]
        if not equals or not all(keys) or len(keys) > DEEPEST:
            raise ConfigError(f"cannot read the setting {shown(assignment)}", hint="write -s section.key=value")
        _assign(result, keys, _parse_value(keys, text.strip()))
    return result


def assigned(table: Table, settings: Mapping[str, Any]) -> Table:
    """As ``override`` with values that are read already, by their dotted keys."""
    result = _copy(table)
    for dotted, value in settings.items():
        keys = dotted.split(".")
        if not all(keys) or len(keys) > DEEPEST:
            raise ConfigError(f"{shown(dotted)} is not a setting", hint='write "section.key" = value')
        _assign(result, keys, _copy(value) if isinstance(value, dict) else value)
    return result


def _assign(table: Table, keys: list[str], value: Any) -> None:
    target = table
    for number, part in enumerate(keys[:-1], 1):
        if isinstance(target.get(part), str):
            target[part] = {"name": target[part]}  # a choice may be written as its name alone
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            hint = f"write -s {'.'.join(keys[:number])}=... to change that"
            raise ConfigError(f"{'.'.join(keys)} is not a setting: {part} holds a single value", hint=hint)
    if keys[-1] == "name" and target.get("name") != value:
        target.clear()
    target[keys[-1]] = value


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
        raise ConfigError(f"unknown {key} {shown(value['name'])}", hint=did_you_mean(value["name"], choices))
    return build(choices[value["name"]], {k: v for k, v in value.items() if k != "name"}, key)


def _convert_to(value: Any, hint: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_to_union(value, arguments, key)
    if origin is Literal:
        if value not in arguments:
            near = difflib.get_close_matches(value if isinstance(value, str) else "", list(map(str, arguments)), n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{key} cannot be {shown(value)}; choose from {', '.join(map(repr, arguments))}", hint=hint
            )
        return value
    if origin is tuple:
        return _convert_to_tuple(value, arguments, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must be a table, got {shown(value)}", hint=f"write {key}.<name>=...")
        return {name: _convert_to(entry, arguments[1], f"{key}.{name}") for name, entry in value.items()}
    if hint is Any:  # checked where it is used
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is a section, not a single value", hint=f"write {key}.<setting>=...")
        return build(typing.cast(type, hint), value, key)
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ConfigError(
            f"{key} must be a number of at most 64 bits, got {shown(value)}",
            hint=_see(key),
        )
    if isinstance(value, str) and not _is_unicode(value):
        message = f"{key} must be text that UTF-8 can hold, got {shown(value)}"
        raise ConfigError(message, hint="a run's settings are kept as UTF-8; rename the file or folder")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} must be a finite number, got {value}", hint=_see(key))
    if type(value) is not hint:  # bool is an int to isinstance, but not to a person
        raise ConfigError(f"{key} must be {_describe(hint)}, got {shown(value)}", hint=_see(key))
    return value


def _is_unicode(text: str) -> bool:
    """False for names of files whose bytes are no text."""
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


def _convert_to_union(value: Any, arguments: tuple[Any, ...], key: str) -> Any:
    kinds = [a for a in arguments if a is not type(None)]
    for kind in kinds:
        if type(value) is kind:
            return _convert_to(value, kind, key)
    errors: list[ConfigError] = []
    for kind in kinds:
        try:
            return _convert_to(value, kind, key)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(
        f"{key} must be {' or '.join(_describe(k) for k in kinds)}, got {shown(value)}", hint=errors[0].hint
    )


def _convert_to_tuple(value: Any, arguments: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key} must be a list, got {shown(value)}", hint=_see(key))
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(
            f"{key} must have {len(arguments)} entries, got {len(value)}",
            hint=_see(key),
        )
    return tuple(_convert_to(v, a, f"{key}[{i}]") for i, (v, a) in enumerate(zip(value, arguments, strict=True)))


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list"
    if typing.get_origin(hint) is dict:
        return "a table"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return words.get(hint, str(hint))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _parse_value(keys: list[str], text: str) -> Any:
    """Read a value as TOML would; bare words are text."""
    try:
        table = tomllib.loads(f"value = {text}")
        check_plain(table)
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        hint = "write a number, a word, or a short list"
        raise ConfigError(f"cannot read the value of {'.'.join(keys)}: {_first_line(error)}", hint=hint) from error
    return table["value"] if len(table) == 1 else text


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _see(key: str) -> str:
    return f"{SEE} {plain_key(key)}"


def _with_default(hint: str, field: dataclasses.Field[Any] | None) -> str:
    """A hint that only says where to look gets the default before it."""
    default = _default_hint(field)
    return f"{default}; {hint}" if hint.startswith(SEE) and SEE not in default else hint or default


def _default_hint(field: dataclasses.Field[Any] | None) -> str:
    """What a person may do whose value was refused, if nothing better is known."""
    if field is None or _is_required(field):
        return "see a preset for an example: attnprobe presets NAME"
    if field.default in (None, dataclasses.MISSING) or dataclasses.is_dataclass(field.default):
        return "it may be left out"
    default = field.default
    return f"the default is {shown(str(default) if isinstance(default, Path) else default)}"


def _copy(table: Table) -> Table:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in table.items()}


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def plain_key(key: str) -> str:
    """Without the number of an entry in a list."""
    return key.partition("[")[0]
