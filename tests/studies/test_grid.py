"""Which runs a study asks for, and with which settings."""

import pytest

from attnprobe.errors import ConfigError
from attnprobe.studies.plan.meaning import config_of

GRID = """
title = "t"
question = "q"
skip = [{ arm = "scratch", rate = "high" }]
settings = { "model.layers" = 2, "finetune.epochs" = 11 }

[axes.arm.scratch]
pretrain = false
[axes.arm.whole]
settings = { "finetune.epochs" = 13 }
[axes.rate.low]
settings = { "finetune.optimizer.lr" = 1e-4 }
[axes.rate.high]
settings = { "finetune.optimizer.lr" = 1e-2, "finetune.epochs" = 17 }

[tables.main]
rows = ["arm"]
columns = ["rate"]

[scales.one]
preset = "textures"
seeds = 2
settings = { "model.layers" = 3, "pretrain.epochs" = 5 }

[scales.two]
preset = "textures"
[scales.two.axes.rate.high]
settings = { "finetune.optimizer.lr" = 0.5 }
[scales.two.axes.rate.highest]
settings = { "finetune.optimizer.lr" = 1.0 }
[scales.two.only]
arm = ["whole"]
rate = ["high", "highest"]
[scales.two.tune]
"finetune.batch_size" = [7, 11]
"pretrain.batch_size" = [13]
"""


def test_places_and_seeds(study) -> None:
    asked = study(text=GRID)
    assert [(p.arm.place, p.seed) for p in asked.runs] == [
        ({"arm": arm, "rate": rate}, seed)
        for seed in (0, 1)
        for arm, rate in (("scratch", "low"), ("whole", "low"), ("whole", "high"))
    ]
    assert [p.seed for p in study(text=GRID, seeds=[5]).runs] == [5, 5, 5]


def test_order_of_settings(study) -> None:
    """Preset, study, scale, choices in the order of the axes, trial, -s: the later one wins."""
    runs = {tuple(arm.place.values()): config_of(arm.table) for arm in study(text=GRID).arms}
    assert runs["scratch", "low"].pretrain is None
    assert {config.model.layers for config in runs.values()} == {3}
    whole = runs["whole", "low"]
    assert whole.pretrain is not None
    assert whole.finetune is not None
    assert (whole.pretrain.epochs, whole.finetune.epochs, whole.finetune.optimizer.lr) == (5, 13, 1e-4)
    assert runs["whole", "high"].finetune.epochs == 17
    for arm in study(text=GRID, settings=["finetune.epochs=19"]).arms:
        assert config_of(arm.table).finetune.epochs == 19


def test_a_scale_changes_axes_choice_by_choice(study) -> None:
    arms = study(text=GRID, scale="two").arms
    assert [(arm.place["rate"], arm.trial["finetune.batch_size"]) for arm in arms] == [
        ("high", 7), ("high", 11), ("highest", 7), ("highest", 11),
    ]  # fmt: skip
    configs = [config_of(arm.table) for arm in arms]
    assert [c.finetune.optimizer.lr for c in configs] == [0.5, 0.5, 1.0, 1.0]
    assert [c.finetune.epochs for c in configs] == [17, 17, 13, 13], "high keeps what the scale does not change"
    assert {c.pretrain.batch_size for c in configs} == {13}
    assert len({planned.key for planned in study(text=GRID, scale="two", seeds=[0]).runs}) == 4
    assert len({planned.pretraining for planned in study(text=GRID, scale="two", seeds=[0]).runs}) == 1


def test_settings_that_are_none(study) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'finetune\.epoch'"):
        study(text=GRID.replace('"finetune.epochs" = 13', '"finetune.epoch" = 13')).runs  # noqa: B018
    with pytest.raises(ConfigError, match=r"a\.\.b"):
        study(text=GRID.replace('"finetune.epochs" = 13', '"a..b" = 13')).arms  # noqa: B018


def test_what_tables_stand_for_is_remembered_until_sources_change(study, monkeypatch) -> None:
    from attnprobe.studies.plan import keys, meaning

    asked = study(text=GRID)
    asked.store.claim()
    first = [planned.key for planned in asked.runs]
    monkeypatch.setattr(meaning, "content_of", None)  # not to be called any more
    assert [planned.key for planned in study(text=GRID).runs] == first
    monkeypatch.setattr(keys, "sources", lambda: "others")
    with pytest.raises(TypeError):
        study(text=GRID).runs  # noqa: B018
    monkeypatch.undo()
    asked.store.memory.write_text("{ damaged")
    assert [planned.key for planned in study(text=GRID).runs] == first


def test_cases_where_choices_meet_and_presets_by_the_names_of_choices(study) -> None:
    text = GRID.replace('preset = "textures"\nseeds = 2', 'preset = "textures-{mixer}-small"').replace(
        "[axes.rate.low]",
        "[axes.mixer.s4]\n[axes.mixer.s4d]\n[[cases]]\nat = { arm = 'whole', rate = 'high' }\n"
        "settings = { 'finetune.epochs' = 23 }\n[[cases]]\nat = { mixer = 's4', rate = 'high' }\n"
        "preset = 'textures-dlr-small'\n[axes.rate.low]",
    )
    found = {tuple(arm.place.values()): config_of(arm.table) for arm in study(text=text).arms}
    assert found["whole", "s4", "high"].finetune.epochs == 23
    assert found["whole", "s4", "low"].finetune.epochs == 13
    names = {place: type(config.model.mixer).__name__ for place, config in found.items()}
    assert names["whole", "s4", "high"].startswith("DLR")
    assert names["whole", "s4", "low"] != names["whole", "s4d", "low"]
    with pytest.raises(ConfigError, match=r"cases\[0\]\.at\.arm names no choice"):
        study(text=text.replace("arm = 'whole'", "arm = 'wole'"))
    with pytest.raises(ConfigError, match="names no axis of this study: 'mixr'"):
        study(text=text.replace("{mixer}", "{mixr}"))
