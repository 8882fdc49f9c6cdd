"""A preset, or a file of one's own, may build on a preset and say only what is different."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe import presets, run
from attnprobe.cli import main
from attnprobe.config import override
from attnprobe.errors import ConfigError

leaves = st.integers() | st.text("ab", max_size=2) | st.lists(st.integers(), max_size=2)
tables = st.recursive(
    st.dictionaries(st.sampled_from("xyz"), leaves, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), leaves | inner, max_size=3),
)


def written(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_a_file_takes_what_it_does_not_say_from_its_base(tmp_path: Path) -> None:
    text = 'base = "textures"\nseed = 3\n[model]\nlayers = 2\n[finetune]\noptimizer = { lr = 0.5 }\n'
    changed = override(presets.read_table("textures"), ["seed=3", "model.layers=2", "finetune.optimizer.lr=0.5"])
    assert run.from_table(presets.read_table(written(tmp_path, text))) == run.from_table(changed)


def test_another_choice_starts_its_table_afresh(tmp_path: Path) -> None:
    """As with -s; in a base the choice may stand as its name alone."""
    other = presets.read_table(written(tmp_path, 'base = "textures"\n[task]\nname = "fashion-mnist"\nside = 14\n'))
    assert other["task"] == {"name": "fashion-mnist", "side": 14}
    same = presets.read_table(written(tmp_path, 'base = "textures"\n[task]\nname = "textures"\nside = 5\n'))
    assert same["task"] == {"name": "textures", "side": 5, "classes": 6}
    assert presets.merged({"task": "text"}, {"task": {"fraction": 0.5}}) == {"task": {"name": "text", "fraction": 0.5}}


@given(tables, tables)
def test_merging_takes_every_value_from_one_of_both(base: dict, own: dict) -> None:
    result = presets.merged(base, own)
    assert result.keys() == base.keys() | own.keys()
    assert presets.merged(result, own) == result
    assert presets.merged({}, own) == own
    assert presets.merged(base, {}) == base


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ('"texture"', "unknown preset 'texture'"),
        ("3", "must be the name of a preset"),
        ('"own.toml"', "must be the name of a preset"),
        ('["textures"]', "must be the name of a preset"),
    ],
)
def test_a_base_that_is_no_preset_is_refused(base: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        presets.read_table(written(tmp_path, f"base = {base}\n"))
    assert caught.value.hint


def test_presets_in_a_circle_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_read", {"a": {"base": "b"}, "b": {"base": "a"}}.__getitem__)
    with pytest.raises(ConfigError, match="a -> b -> a"):
        presets.read_table("a")


def test_what_is_shown_and_kept_is_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of the base stand in it, its name does not."""
    with pytest.raises(SystemExit):
        main(["presets", "listops-s4-random", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert "base" not in shown
    mixer = shown["model"]["mixer"]
    assert (mixer["name"], mixer["start"], mixer["copies"]) == ("s4", "normal", 128)
    assert shown["task"]["name"] == "listops"


def test_no_two_presets_have_one_name() -> None:
    files = list(Path(presets.__file__).parent.rglob("*.toml"))
    assert len({file.name for file in files}) == len(files) == len(presets.descriptions())
