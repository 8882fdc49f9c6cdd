"""published = true turns on every published switch that is not given explicitly, and is read back as it was."""

import dataclasses
import tomllib

import pytest
import tomli_w

from attnprobe import presets, published, run
from attnprobe.config import override
from attnprobe.errors import ConfigError

ALWAYS = {"model.init": "tied", "model.padding": "attended", "engine.batching": "longest"}
PRETRAIN = {
    "pretrain.optimizer.decay": "all", "pretrain.optimizer.warmup_start": "zero", "pretrain.ties": "later",
    "pretrain.evaluation": "drop_last",
}  # fmt: skip
FINETUNE = {key.replace("pretrain", "finetune"): value for key, value in PRETRAIN.items()}
FRESH = {"pretrain.evaluation_masks": "fresh"}
BY_ACCURACY = {"pretrain.selection": "accuracy"}
IDENTITY = {"model.reconstruction_head": "identity"}
NO_MASK = {"model.embedding_fan_in": "without_mask"}
BOTH = ALWAYS | PRETRAIN | FINETUNE

EXPECTED = {
    "image": BOTH | FRESH,
    "image-causal": BOTH | NO_MASK,
    "listops": BOTH | FRESH | BY_ACCURACY,
    "text": BOTH | FRESH | BY_ACCURACY | IDENTITY | {"task.validation": "test"},
    "retrieval-causal": BOTH | BY_ACCURACY | IDENTITY,
    "speech-commands": BOTH | FRESH | {"task.double_scaling": True},
    "bidmc-hr": BOTH | FRESH,
    "pathfinder": BOTH | FRESH | BY_ACCURACY,
}


def configured(preset: str, *changes: str) -> run.RunConfig:
    return run.from_table(override(presets.read_table(preset), changes))


@pytest.mark.parametrize("preset", EXPECTED)
def test_what_is_turned_on(preset: str) -> None:
    """All of it, and nothing else: every other setting stays that of the clean run."""
    config = configured(preset, "published=true")
    assert published.described(run.to_table(config)) == {"on": EXPECTED[preset], "kept": {}}
    changes = ["published=true", *(f"{key}={str(value).lower()}" for key, value in EXPECTED[preset].items())]
    assert run.from_table(override(run.to_table(configured(preset)), changes)) == config
    clean = run.to_table(configured(preset))
    for key, value in EXPECTED[preset].items():
        default = clean
        for part in key.split("."):
            default = default[part]
        assert default != value, f"{key} is no departure from the default"


def test_from_scratch_has_no_mask_channel_and_labels_as_they_are() -> None:
    table = override(presets.read_table("bidmc-hr"), ["published=true"])
    del table["pretrain"]
    scratch = run.from_table(table)
    assert scratch.model.embedding_fan_in == "without_mask"
    assert not scratch.task.rescale_targets
    assert configured("bidmc-hr", "published=true").model.embedding_fan_in == "with_mask"


def test_an_explicit_setting_wins_and_is_named() -> None:
    config = configured("text", "published=true", "model.init=independent", "finetune.ties=earlier")
    assert (config.model.init, config.finetune.ties, config.model.padding) == ("independent", "earlier", "attended")
    found = published.described(run.to_table(config))
    assert found["kept"] == {"model.init": "independent", "finetune.ties": "earlier"}
    assert "model.init" not in found["on"]
    on, kept = published.lines(run.to_table(config))
    assert "model.padding=attended" in on
    assert kept == "kept as given, other than published: model.init=independent, finetune.ties=earlier"


@pytest.mark.parametrize("preset", EXPECTED)
@pytest.mark.parametrize("changes", [[], ["model.init=independent"]])
def test_settings_that_were_written_are_read_back(preset: str, changes: list[str]) -> None:
    config = configured(preset, "published=true", *changes)
    again = run.from_table(tomllib.loads(tomli_w.dumps(run.to_table(config))))
    assert again == config
    assert run.fingerprint(again) == run.fingerprint(config)
    clean = configured(preset, *changes)
    assert run.fingerprint(clean) != run.fingerprint(config)
    assert published.described(run.to_table(clean)) == {"on": {}, "kept": {}}
    assert published.lines(run.to_table(clean)) == []
    assert dataclasses.replace(config, published=False) != clean


def test_short_forms_and_mistakes() -> None:
    table = presets.read_table("text") | {"task": "text", "published": True}
    assert run.from_table(table).task.validation == "test"
    assert table["task"] == "text", "the table given is not changed"
    for wrong in ({"model": 3}, {"engine": "fast"}, {"pretrain": 5}, {"task": 7}, {"published": "yes"}):
        with pytest.raises(ConfigError):
            run.from_table(presets.read_table("text") | {"published": True} | wrong)
