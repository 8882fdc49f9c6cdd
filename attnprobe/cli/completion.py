"""What the shell offers at a press of Tab: presets, tasks, settings and their values. Nothing here loads torch."""

import ast
import os
from collections.abc import Iterator, MutableMapping
from typing import Any

from attnprobe.settings import Setting, all_settings
from attnprobe.settings.source_code import read_module, value_of

EQUALS = "="  # bash takes it for a word of its own
_key_before_cursor: str | None = None  # of KEY=VALUE, where bash asks for VALUE alone


def join_assignments(environment: MutableMapping[str, str]) -> None:
    """Put together what bash has split: ``-s key = value`` is ``-s key=value``. To be called before anything is parsed.

    Of the assignment at the cursor bash wants the value alone, so its key is taken out and kept.
    """
    global _key_before_cursor
    if not environment.get("_ATTNPROBE_COMPLETE", "").endswith("bash") or "COMP_WORDS" not in environment:
        return
    words, cursor = environment["COMP_WORDS"].split("\n"), int(environment["COMP_CWORD"])
    before, current = words[:cursor], words[cursor] if cursor < len(words) else ""
    if current == EQUALS:
        before, current = [*before, EQUALS], ""
    if before[-1:] == [EQUALS] and len(before) > 1:
        *before, _key_before_cursor, _ = before
    joined: list[str] = []
    while before:
        word = before.pop(0)
        if word == EQUALS and joined:
            word = joined.pop() + EQUALS + (before.pop(0) if before else "")
        joined.append(word)
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join([*joined, current]), str(len(joined))


def complete_presets(incomplete: str) -> Iterator[tuple[str, str]]:
    from attnprobe.presets import descriptions

    yield from ((name, text) for name, text in descriptions().items() if name.startswith(incomplete))


def complete_tasks(incomplete: str) -> list[str]:
    return [name for name in task_names() if name.startswith(incomplete)]


def complete_sources(incomplete: str) -> list[str]:
    from attnprobe.tasks.sources.catalogue import PUBLISHED_SOURCES, SOURCES, TASK_SOURCES

    return [
        name for name in dict.fromkeys([*TASK_SOURCES, *PUBLISHED_SOURCES, *SOURCES]) if name.startswith(incomplete)
    ]


def complete_keys(incomplete: str) -> list[str]:
    keys = dict.fromkeys(setting.key for setting in all_settings())
    return [key for key in keys if key.startswith(incomplete)]


def complete_run_setting(incomplete: str) -> list[str]:
    """KEY=VALUE of a run; only what the preset's tasks and objectives have."""
    from attnprobe.presets import descriptions

    known = descriptions()
    table = _preset_table(next((word for word in _typed() if word in known or word.endswith(".toml")), "textures"))
    return _assignments([s for s in all_settings() if _belongs(s, table)], table, incomplete)


def complete_task_setting(incomplete: str) -> list[str]:
    """KEY=VALUE of one task; keys stand without their section."""
    task = next((word for word in _typed() if word in task_names()), "")
    found = [s for s in all_settings() if s.section == "task" and s.name != "name" and (not s.of or task in s.of)]
    if _key_before_cursor is not None:
        return _assignments(found, {}, incomplete)
    incomplete, prefix = incomplete.removeprefix("task."), "task." if incomplete.startswith("task.") else ""
    return [prefix + text.removeprefix("task.") for text in _assignments(found, {}, f"task.{incomplete}")]


def _typed() -> list[str]:
    """The words on the command line. Typer's context lacks them while an option still waits for its value."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()


def task_names() -> list[str]:
    """What may be called ``task.name``, without loading a task."""
    module, tasks = read_module("attnprobe.tasks.by_name").resolve("TASKS")
    assert isinstance(tasks, ast.Dict)
    return [value_of(module, key) for key in tasks.keys if key is not None]


def _assignments(found: list[Setting], table: dict[str, Any], incomplete: str) -> list[str]:
    """Keys; where one is left, or one is given, KEY=VALUE; where bash has cut off the key, VALUE."""
    if _key_before_cursor is not None:
        wanted = _key_before_cursor.removeprefix("task.")
        values = [v for s in found if s.key.removeprefix("task.") == wanted for v in _values(s, table)]
        return [value for value in dict.fromkeys(values) if value.startswith(incomplete)]
    key, equals, _ = incomplete.partition(EQUALS)
    keys = dict.fromkeys(s.key for s in found if (s.key == key if equals else s.key.startswith(key)))
    if len(keys) > 1:
        return list(keys)
    texts = [f"{s.key}={value}" for s in found if s.key in keys for value in _values(s, table) or [""]]
    return [text for text in dict.fromkeys(texts) if text.startswith(incomplete)]


def _values(setting: Setting, table: dict[str, Any]) -> list[str]:
    """What may stand after the equals sign: all words there are, else what holds without it."""
    from attnprobe.cli.settings import value_text

    if setting.values:
        return [str(value) for value in setting.values]
    if setting.type == "true or false":
        return ["true", "false"]
    value: Any = table
    for part in setting.key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    value = setting.default if value is None else tuple(value) if isinstance(value, list) else value
    return [] if value is None else [value_text(value)]


def _preset_table(name: str) -> dict[str, Any]:
    from attnprobe.errors import AttnprobeError
    from attnprobe.presets import read_table

    try:
        return read_table(name)
    except AttnprobeError:  # not typed to its end yet, or wrong: then all settings are offered
        return {}


def _belongs(setting: Setting, table: dict[str, Any]) -> bool:
    """Whether the task or objective that has this setting is the one the preset names."""
    section: Any = table
    for part in setting.section.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    name = section.get("name") if isinstance(section, dict) else section
    if name is None and setting.section.endswith(".task"):  # a phase's task without a name is the run's own, changed
        task = table.get("task")
        name = task.get("name") if isinstance(task, dict) else task
    return not setting.of or not table or name in setting.of
