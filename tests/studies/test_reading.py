"""A study's file: every mistake is one line before anything runs."""

import pytest

from attnprobe.cli.study.options import requested
from attnprobe.errors import ConfigError
from attnprobe.studies.executors import opened
from attnprobe.studies.plan.reading import names, read
from attnprobe.studies.request import request

ARMS = "[axes.arm.a]\npretrain = false\n[axes.arm.b]\n"
SIZES = '[axes.size.small]\nsettings = { "task.n_train" = 7 }\n[axes.size.all]\n'
HEAD = 'title = "t"\nquestion = "q"\n'
TABLE = '[tables.main]\nrows = ["arm"]\ncolumns = ["size"]\n'
SCALE = '[scales.tiny]\npreset = "textures"\n'
ARMS += SIZES
WHOLE = HEAD + ARMS + TABLE + SCALE

MISTAKES = {
    "unknown key": (HEAD + "seeds = 3\n" + ARMS + TABLE + SCALE, "unknown setting 'seeds'", "did you mean"),
    "near key": (WHOLE.replace("rows =", "row ="), "unknown setting 'tables.main.row'", "did you mean 'rows'"),
    "axis of a table": (WHOLE.replace('["size"]', '["sizes"]'), "tables.main.columns names no axis", "'size'"),
    "axis twice": (WHOLE.replace('["size"]', '["arm"]'), "is in the rows already", ""),
    "axis of a figure": (WHOLE + '[figures.f]\nx = "sise"\n', "figures.f.x names no axis", "'size'"),
    "figure without x": (WHOLE + '[figures.f]\nlines = "arm"\n', "figures.f.x is missing", "arm"),
    "axis of skip": ('skip = [{ arms = "a" }]\n' + WHOLE, "skip[0] names no axis", "'arm'"),
    "choice of skip": ('skip = [{ arm = "c" }]\n' + WHOLE, "names no choice of axis arm: 'c'", "a, b"),
    "axis of only": (WHOLE + '[scales.tiny.only]\narms = ["a"]\n', "scales.tiny.only names no axis", "'arm'"),
    "choice of only": (WHOLE + '[scales.tiny.only]\narm = ["c"]\n', "names no choice of axis arm", ""),
    "no preset": (WHOLE.replace('preset = "textures"\n', ""), "scales.tiny.preset is missing", "one axis"),
    "two presets": (WHOLE.replace("[axes.arm.b]\n", '[axes.arm.b]\npreset = "textures"\n'), "has two presets", ""),
    "half a preset": (
        WHOLE.replace('preset = "textures"\n', "").replace("[axes.arm.b]\n", '[axes.arm.b]\npreset = "textures"\n'),
        "axes.arm.a has no preset",
        "",
    ),
    "compare without against": (WHOLE.replace("columns", 'compare = "arm"\ncolumns'), "against is missing", ""),
    "against without compare": (WHOLE.replace("columns", 'against = "a"\ncolumns'), "compare is missing", ""),
    "against nothing": (WHOLE.replace("columns", 'compare = "arm"\nagainst = "c"\ncolumns'), "names no choice", ""),
    "template": (WHOLE.replace("columns", 'published = { task = "{tsk}" }\ncolumns'), "task names no axis", ""),
    "brace": (WHOLE.replace("columns", 'published = { task = "{arm" }\ncolumns'), "brace", "{axis}"),
    "column": (WHOLE.replace("columns", 'published = { tsk = "{arm}" }\ncolumns'), "no column", "'task'"),
    "number": (WHOLE.replace("columns", 'number = "accuracy"\ncolumns'), "neither in result.json nor", "test_"),
    "trajectory": (WHOLE + '[figures.f]\nkind = "trajectory"\nnumber = "score_sd"\n', "needs trajectory_every", ""),
    "nothing to show": (HEAD + ARMS + SCALE, "tables and figures are both missing", ""),
    "name that leaves the folder": (WHOLE + '[figures."../../f"]\nx = "size"\n', "must be a name of letters", ""),
    "name that is two": (WHOLE.replace("tables.main", 'tables."a/b"'), "must be a name of letters", ""),
    "scale that is a path": (WHOLE.replace("scales.tiny", 'scales."../tiny"'), "must be a name of letters", ""),
    "seed of a run": (WHOLE + 'settings = { "seed" = 7 }\n', "settings.seed is no setting", "scales.tiny.seeds"),
    "seed that is tuned": ("tune = { seed = [1, 2] }\n" + WHOLE, "tune.seed is no setting", "scales.tiny.seeds"),
    "no scales": (HEAD + ARMS + TABLE, "scales is missing", "like [scales.NAME]"),
    "escape": (WHOLE.replace('title = "t"', r'title = "\u001b[3m"'), r"title holds control characters: '\x1b[3m'", ""),
    "escape in a label": (WHOLE.replace("[axes.arm.b]\n", '[axes.arm.b]\nlabel = "\\u0007"\n'), "axes.arm.b.label", ""),
    "escape in a name": (WHOLE.replace("[axes.arm.b]", r'[axes.arm."\u001b"]'), r"axes.arm.\x1b holds control", ""),
    "too large": (WHOLE + "seeds = 100000000\n", "scales.tiny asks for 400,000,000 runs", "fewer seeds"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read(str(path))
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert hint in raised.value.hint
    assert "\n" not in str(raised.value)


def test_the_right_one(tmp_path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(WHOLE)
    source = read(str(path))
    assert source.name == "right"
    assert source.scale(None) == "tiny"
    with pytest.raises(ConfigError, match="has no scale 'tinny'"):
        source.scale("tinny")


def test_a_question_may_have_lines(tmp_path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(WHOLE.replace('"q"', '"""\na\nb"""'))
    assert read(str(path)).study.question == "a\nb"


def test_wrong_settings_of_runs_are_told_with_the_file(tmp_path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(WHOLE.replace("task.n_train", "task.n_trian"))
    with pytest.raises(ConfigError, match=r"wrong.toml: unknown setting 'task.n_trian'"):
        _ = request(str(path), out=tmp_path / "out").runs


def test_a_seed_among_the_settings_is_refused_and_that_of_the_environment_is_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ATTNPROBE_SET", "seed=4")
    assert requested("demo", None, "2", ["finetune.epochs=2"], tmp_path).seeds == [0, 1]
    with pytest.raises(ConfigError, match="is no setting") as raised:
        requested("demo", None, None, [" seed =4"], tmp_path)
    assert "--seeds" in raised.value.hint


@pytest.mark.parametrize("option", ["threads=many", "nope"])
def test_options_of_executors_have_hints_of_their_own(tmp_path, option: str) -> None:
    with pytest.raises(ConfigError) as raised:
        opened("processes", folder=tmp_path, options=[option])
    assert raised.value.hint.startswith("write -x KEY=VALUE; processes knows jobs, ")
    with pytest.raises(ConfigError, match=r"unknown setting 'executor.thread'") as raised:
        opened("processes", folder=tmp_path, options=["thread=2"])
    assert "did you mean 'threads'" in raised.value.hint


def test_names() -> None:
    assert "demo" in names()
    with pytest.raises(ConfigError, match="unknown study 'dem'") as raised:
        read("dem")
    assert "did you mean 'demo'" in raised.value.hint
