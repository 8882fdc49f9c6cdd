"""attnprobe model: what can be chosen, and what a preset's model is made of."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from attnprobe.cli import main
from attnprobe.models.mixers import MIXERS
from attnprobe.settings import all_settings
from attnprobe.settings.model_choices import GLOSS, choices


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def ask(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["model", *arguments, "--json"])
        assert stopped.value.code == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return ask


def test_every_choice_has_a_line_and_a_source(answer) -> None:
    found = answer("list")["choices"]
    assert [row["name"] for row in found if row["setting"] == "mixer"] == list(MIXERS)
    assert all(row["what"] and row["source"] for row in found)
    assert all(len(row["what"]) < 110 and "\n" not in row["what"] for row in found)
    assert answer("list", "norm") == {"choices": [row for row in found if row["setting"] == "norm"]}
    for setting in {row["setting"] for row in found}:
        assert sum(row["default"] for row in found if row["setting"] == setting) == 1, setting


def test_the_choices_are_those_of_the_settings() -> None:
    """Nothing that can be set is left out, and nothing is explained that cannot be set."""
    declared = {
        s.name: tuple(map(str, s.values))
        for s in all_settings()
        if s.section == "model" and s.values and all(isinstance(value, str) for value in s.values)
    }
    assert {setting: tuple(values) for setting, values in GLOSS.items()} == declared
    assert {choice.setting for choice in choices()} == {"mixer", *declared}
    cited = [choice for choice in choices() if choice.setting == "mixer" and choice.source == "our choice"]
    assert not cited, "name the paper in the docstring of its settings"


def test_a_summary_says_what_the_plan_of_a_run_says(answer, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("-s", "model.layers=2", "-s", "pretrain.batch_size=20")
    found = answer("summary", "textures", *changes)
    with pytest.raises(SystemExit):
        main(["train", "textures", *changes, "--dry-run", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert found["parameters"] == plan["parameters"] == sum(part["parameters"] for part in found["parts"])
    for phase, numbers in found["phases"].items():
        assert numbers["memory"] == plan["phases"][phase]["memory"]["total"]
        assert numbers["activations"] == plan["phases"][phase]["memory"]["activations"]
        assert 0 < numbers["seconds_per_step"] < 60
    assert found["phases"]["pretrained"]["batch_size"] == 20


def test_what_is_too_large_is_not_timed(answer) -> None:
    numbers = answer("summary", "pathx-256", "--no-measure")["phases"]["pretrained"]
    assert numbers["seconds_per_step"] is None
    assert numbers["note"] == ""
    wide = answer("summary", "textures", "-s", "task.side=64", "-s", "model.d_model=2048", "-s", "model.layers=24")
    assert wide["phases"]["finetuned"]["seconds_per_step"] is None
    assert "not timed" in wide["phases"]["finetuned"]["note"]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model", "summary", "textures", "--no-measure", "-s", "model.layers=3", "-s", "model.mixer=spade"])
    shown = capsys.readouterr().out
    assert "mixer spade" in shown
    assert "1-2" in shown
    assert "pretrained" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "mixr"], "did you mean 'mixer'?"),
        (["summary", "texturs"], "did you mean 'textures'?"),
        (["summary", "textures", "-s", "model.mixer=linfrmer"], "did you mean 'linformer'?"),
    ],
)
def test_wrong_names_are_one_line_with_a_suggestion(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["model", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
