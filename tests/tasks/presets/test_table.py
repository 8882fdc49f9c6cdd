"""experiments/PRESETS.md says what presets and published values say, and no deviation is without a reason."""

import pytest

from attnprobe import presets
from attnprobe.models.mixers import MIXERS
from tests.tasks.presets.table import TABLE, Value, ours, parsed, read_values, render, settings_of

VALUES = read_values()
OURS_ALONE = {
    "textures",
    "textures-10x10",
    "textures-shortcut",
    "fashion-mnist",
    "listops-spade",
    "pathx-spade",
    "arrays",
    "arrays-tokens",
    "table",
    "images",
}  # of no paper, like those for small machines


def test_the_table_is_up_to_date() -> None:
    assert TABLE.read_text(encoding="utf-8") == render(), "write it anew: python -m tests.tasks.presets.table"


@pytest.mark.parametrize("preset", sorted({value.preset for value in VALUES}))
def test_every_deviation_has_a_reason_and_every_setting_a_source_that_agrees(preset: str) -> None:
    """Where the paper and its files disagree, ours is one of the two; only what cannot be set agrees with neither."""
    table = settings_of(preset)
    mixer = MIXERS[table["model"]["mixer"]["name"]].layer
    by_setting: dict[str, list[Value]] = {}
    for value in VALUES:
        if value.preset == preset:
            by_setting.setdefault(value.setting, []).append(value)
            assert value.source, value
            assert (ours(table, value.setting) != value.published) == bool(value.why), value
    for setting, values in by_setting.items():
        agrees = [not value.why for value in values]
        impossible = setting == "model.attention_dropout" and "attention_dropout" not in mixer.obeys
        assert any(agrees) or setting.startswith("(") or impossible, (preset, setting)
    heads = ("model.heads",) if "heads" in mixer.obeys else ()
    shape = ("model.d_model", "model.layers", *heads, "model.d_mlp", "model.positions")
    shape = (
        ("model.backbone.source", "model.backbone.weights", "model.causal") if "backbone" in table["model"] else shape
    )
    for needed in (*shape, "model.readout"):
        assert needed in by_setting or (preset, needed) in UNTOLD, needed
    for setting in presets.read_table(preset)["model"].get("mixer", {}).keys() - {"name"}:  # what is not a default
        assert f"model.mixer.{setting}" in by_setting, setting
    for phase in {"pretrain", "finetune"} & table.keys():
        for needed in ("epochs", "batch_size", "optimizer.lr", "optimizer.schedule", "optimizer.warmup"):
            assert f"{phase}.{needed}" in by_setting, needed


UNTOLD = {(f"{task}-coser", "model.readout") for task in ("listops", "text", "retrieval", "pathfinder")}


def test_every_published_run_has_its_values() -> None:
    named = {name for name in presets.descriptions() if not name.endswith("-small")} - OURS_ALONE
    assert {value.preset for value in VALUES} == named


def test_values_are_read_as_toml() -> None:
    assert [parsed(text) for text in ("1e-3", "512", "true", "[1, 2]", "rotary")] == [
        0.001,
        512,
        True,
        [1, 2],
        "rotary",
    ]
