"""Wrong commands are told like every other mistake, and every command's help shows how it is used."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from attnprobe.cli.app import app


def commands(group: Any, name: str = "") -> Iterator[str]:
    for word, command in group.commands.items():
        if not command.hidden:  # an earlier name
            yield from commands(command, f"{name}{word} ") if hasattr(command, "commands") else [name + word]


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples(attnprobe, command: str) -> None:
    outcome = attnprobe(*command.split(), "--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line for line in lines if line.strip().startswith("Examples")]
    examples = [line for line in lines if line.strip().startswith(f"attnprobe {command}")]
    assert examples
    indents = {len(line) - len(line.lstrip()) for line in lines if "attnprobe " in line and line.strip()[0] == "a"}
    assert min(indents) > 1, "an example has lost its indentation"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian", ["no such command 'trian'", "did you mean 'train'?"]),
        ("probe proximty x.pt", ["no such command 'proximty'", "did you mean 'proximity'?"]),
        ("data lst", ["no such command 'lst'", "did you mean 'list'?"]),
        ("train --sed 3", ["no such option: --sed", "did you mean '--seed'?"]),
        ("train --seed three", ["--seed", "valid integer", "train --help"]),
        ("train --seed -1", ["--seed", "greater than or equal to 0"]),
        ("train textures listops", ["unexpected extra argument", "listops", "train --help"]),
        ("bench --suite cp", ["'cp' is not one of", "did you mean 'cpu'?"]),
        ("bench --suite zzz", ["'zzz' is not one of", "choose from cpu, gpu, quick"]),
        ("probe proximity", ["missing argument", "write", "probe proximity CHECKPOINTS ..."]),
        ("data describe", ["missing argument", "data describe NAME"]),
        ("presets texturs", ["unknown preset 'texturs'", "did you mean 'textures'"]),
        ("data describe texturs", ["there is no task 'texturs'", "did you mean 'textures'"]),
    ],
)
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_wrong_commands(attnprobe, line: str, words: list[str], json: list[str]) -> None:
    outcome = attnprobe(*line.split(), *json)
    assert outcome.code == 2
    outcome.complains(*words)
    lines = outcome.err.splitlines()
    assert [text.split(":")[0] for text in lines] == ["error", "hint"], outcome.err


def test_an_option_without_its_value(attnprobe) -> None:
    attnprobe("train", "--seed").complains("option '--seed' requires an argument", "--help")


def test_no_command_shows_the_help(attnprobe) -> None:
    outcome = attnprobe()
    assert outcome.code == 2
    assert "Usage" in outcome.out + outcome.err
    assert "error:" not in outcome.err
