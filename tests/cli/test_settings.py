"""`attnprobe settings` reads the sources; here what it read is held against the dataclasses themselves."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from attnprobe.config import choice_name
from attnprobe.run import RunConfig
from attnprobe.settings import Setting, all_settings, sections


def real_fields(cls: Any, prefix: str = "", of: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """(key, task or objective, default, type hint) of every field that is no section."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        sections = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if choices := field.metadata.get("choices"):
            default = choice_name(choices, field.default) if dataclasses.is_dataclass(field.default) else field.default
            yield f"{key}.name", of, default, typing.Literal[tuple(choices)]
            for name, choice in choices.items():
                yield from real_fields(choice, f"{key}.", name)
        elif sections:
            yield from real_fields(sections[0], f"{key}.", of)
        else:
            yield key, of, field.default, hint


REAL = list(real_fields(RunConfig))


def found_for(key: str, of: str) -> Setting:
    [found] = [s for s in all_settings() if s.key == key and (not s.of or of in s.of)]
    return found


def test_values_are_listed_once() -> None:
    assert found_for("task.side", "pathfinder").allowed == "one of 32, 64, 128, 256"
    assert found_for("task.side", "textures").allowed == "must be greater than zero; must be at least 2 pixels"
    assert "; " in found_for("finetune.selection", "").allowed  # what else must hold still stands there


def test_every_setting_is_read_and_no_other() -> None:
    assert {key for key, *_ in REAL} == {s.key for s in all_settings()}
    for key, of, default, hint in REAL:
        setting = found_for(key, of)
        assert setting.required == (default is dataclasses.MISSING), key
        assert setting.default == (None if setting.required else default), key
        literals = {v for h in [hint, *typing.get_args(hint)] if typing.get_origin(h) is typing.Literal
                    for v in typing.get_args(h)}  # fmt: skip
        assert set(setting.values) == literals, key


def test_every_setting_is_explained() -> None:
    lacking = sorted({f"{s.key} of {', '.join(s.of) or 'every run'}" for s in all_settings() if not s.meaning})
    assert not lacking, "write a comment on the field's line, or on the line above it"


def test_types_limits_and_sources() -> None:
    warmup = found_for("finetune.optimizer.warmup", "")
    assert (warmup.type, warmup.default) == ("int or float", 0.05)
    assert "must be a share below 1 or a whole number of steps" in warmup.limits
    assert found_for("task.n_train", "image").limits == ("must be greater than zero",)
    assert found_for("model.d_model", "").limits == ("must be greater than zero", "must be divisible by heads")
    assert found_for("model.score_profile_shuffle", "").limits[-1] == "must not be negative"  # said in another method
    assert "must exceed min_length by 2 or more" in found_for("task.max_length", "listops").limits
    assert not found_for("model.causal", "").limits  # what depends on the mixer is said when it is refused
    assert found_for("engine.attention", "").values == ("auto", "cudnn", "flash", "efficient", "math")
    assert found_for("model.init", "").source == "published code"
    assert found_for("task.side", "fashion-mnist").default == 28
    assert sections()["finetune.optimizer"].startswith("AdamW")


def test_all_sections_are_listed(attnprobe, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    outcome = attnprobe("settings")
    assert outcome.code == 0
    titles = [line.split(":")[0].split(" (")[0].strip() for line in outcome.out.splitlines()]
    for title in ("task", "model", "finetune, and pretrain likewise", "finetune.optimizer", "engine", "the run itself"):
        assert title in titles
    assert "pretrain.optimizer" not in titles  # said once, with finetune's


def test_one_setting(attnprobe) -> None:
    outcome = attnprobe("settings", "model.init")
    words = dict(line.split(maxsplit=1) for line in outcome.out.splitlines() if line.strip() and " " in line.strip())
    assert words["default"].strip() == "independent"
    assert words["allowed"].strip() == "one of independent, tied, proximity, shuffled"
    assert words["source"].strip() == "published code"
    assert words["change"].strip() == "-s model.init=independent"


def test_a_setting_that_tasks_have_differently(attnprobe) -> None:
    found = attnprobe("settings", "task.max_length", "--json").document()["settings"]
    defaults = {("listops",): 2000, ("text",): 4096, ("retrieval",): 4000, ("table",): 1024}
    assert {tuple(s["of"]): s["default"] for s in found} == defaults
    keys = {"key", "of", "type", "default", "required", "values", "allowed", "meaning", "source", "declared_in"}
    assert set(found[0]) == keys


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        ([], {"betas", "[0.9,0.999]", "speech-commands,", "paddle_thickness"}),
        (["finetune.optimizer"], {"weight_decay", "constant,", "matrices", "embeddings,"}),
        (["finetune.optimizer.warmup"], {"0.05", "finetune.optimizer.warmup=0.05"}),
    ],
)
def test_narrow_terminals(attnprobe, monkeypatch, width: int, arguments: list[str], whole: set[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = attnprobe("settings", *arguments).out.splitlines()
    assert max(map(len, lines)) <= width
    assert whole <= {word for line in lines for word in line.split()}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("finetune.optimzer.lr", "finetune.optimizer.lr"),
        ("finetune.optimiser", "finetune.optimizer"),
        ("model.d_modle", "model.d_model"),
        ("lr", "finetune.optimizer.lr"),
        ("warmpu", "finetune.optimizer.warmup"),
        ("zzzzzz", "attnprobe settings"),
    ],
)
def test_a_misspelt_key(attnprobe, key: str, nearest: str) -> None:
    outcome = attnprobe("settings", key)
    assert outcome.code == 2
    outcome.complains(f"there is no setting {key!r}", nearest)
