"""attnprobe settings: what can be set in a run, and what it means."""

import dataclasses
import difflib
from typing import Annotated, Any

import typer

from attnprobe.cli.completion import complete_keys
from attnprobe.cli.screen.output import Json, print_json, print_table, say, stdout
from attnprobe.errors import ConfigError
from attnprobe.settings import Setting, all_settings, sections

REPEATED = ("pretrain", "finetune.task")  # have the settings of finetune and of task


def settings(
    key: Annotated[
        str | None,
        typer.Argument(help="A setting or a section, e.g. finetune.optimizer.", autocompletion=complete_keys),
    ] = None,
    json: Json = False,
) -> None:
    """Explain the settings of a run: type, default, what is allowed, meaning, and where a value comes from.

    Examples:

        attnprobe settings

        attnprobe settings finetune.optimizer

        attnprobe settings model.positions

        attnprobe settings task.n_train --json
    """
    chosen = all_settings() if key is None else select(key)
    if json:
        print_json({"settings": [to_dict(setting) for setting in chosen]})
    elif key is not None and all(setting.key == key for setting in chosen):
        for setting in chosen:
            explain(setting)
    else:
        shown = [s for s in chosen if key is not None or not is_repeated(s.key)]
        for section, of in dict.fromkeys((s.section, s.of) for s in shown):
            show_section(section, of, [s for s in shown if (s.section, s.of) == (section, of)])
        say("More about one of them: attnprobe settings KEY. To change one: attnprobe train -s KEY=VALUE")


def select(key: str) -> list[Setting]:
    """The setting, in all its forms, or all settings of the section; ConfigError if there is no such key."""
    key = key.strip(".")
    found = [s for s in all_settings() if s.key == key or s.key.startswith(f"{key}.")]
    if found:
        return found
    keys = list(dict.fromkeys(s.key for s in all_settings()))
    known = [k for k in [*keys, *(k for k in sections() if "[" not in k)] if not is_repeated(k)]
    last = key.rpartition(".")[2]
    near = [k for k in known if k.endswith(f".{last}")] if "." not in key else []
    near = near or difflib.get_close_matches(key, keys + list(sections()), n=1)
    near = near or [k for word in difflib.get_close_matches(last, [k.rpartition(".")[2] for k in known], n=1)
                    for k in known if k.rpartition(".")[2] == word]  # fmt: skip
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else "see all of them: attnprobe settings"
    raise ConfigError(f"there is no setting {key!r}", hint=hint)


def is_repeated(key: str) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in REPEATED)


def explain(setting: Setting) -> None:
    """One setting, an aspect a line."""
    aspects = {
        "of": ", ".join(setting.of),
        "meaning": setting.meaning,
        "type": setting.type,
        "default": "none, it must be given" if setting.required else value_text(setting.default),
        "allowed": setting.allowed,
        "source": setting.source,
        "change": f"-s {setting.key}={'...' if setting.default is None else value_text(setting.default)}",
    }
    rows = [[aspect, text] for aspect, text in aspects.items() if text]
    print_table(setting.key, ["", ""], rows, numeric_from=2)
    stdout.out("")


def show_section(name: str, of: tuple[str, ...], found: list[Setting]) -> None:
    """A table; what only some tasks or objectives have stands in tables of their own."""
    rows = []
    for setting in found:
        default = "required" if setting.required else value_text(setting.default)
        meaning = "; ".join(filter(None, (setting.meaning, setting.allowed if setting.values else "")))
        rows.append([setting.name, default, meaning])
    title = {"finetune": "finetune, and pretrain likewise", "": "the run itself"}.get(name, name)
    about = sections().get(f"{name}[{of[0]}]" if len(of) == 1 else "" if of else name, "")
    heading = f"{title} ({', '.join(of)})" if of else title
    print_table(f"{heading}: {about}" if about else heading, ["setting", "default", "meaning"], rows, numeric_from=3)
    stdout.out("")


def value_text(value: Any) -> str:
    """As it is written after -s; a bare word needs no quotes."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(value_text, value))}]"
    return str(value)


def to_dict(setting: Setting) -> dict[str, Any]:
    found = dataclasses.asdict(setting) | {"source": setting.source, "allowed": setting.allowed}
    del found["limits"]
    return found
