import dataclasses
import tomllib
from pathlib import Path
from typing import Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from attnprobe import presets, run
from attnprobe.config import build, dump, override, read_toml, require_positive
from attnprobe.errors import ArtifactError, ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    width: int = 3
    rate: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "width")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    text: str = "x"


CHOICES = {"part": Part, "other": Other}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    part: Part = dataclasses.field(default_factory=Part)
    kind: Literal["a", "b"] = "a"
    chosen: Part | Other = dataclasses.field(default_factory=Part, metadata={"choices": CHOICES})
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()
    flag: bool = False
    path: Path | None = None
    steps: int | float = 0.1
    words: str | tuple[str, ...] = "all"


def test_a_table_becomes_dataclasses() -> None:
    table = {"part": {"width": 5, "rate": 1}, "kind": "b", "chosen": {"name": "other", "text": "y"}, "pair": [1, 2]}
    whole = build(Whole, table | {"names": ["p", "q"], "path": "data/x", "steps": 7, "words": ["a.*"]})
    assert whole.part == Part(width=5, rate=1.0)
    assert isinstance(whole.part.rate, float)
    assert whole.chosen == Other(text="y")
    assert whole.pair == (1.0, 2.0)
    assert whole.names == ("p", "q")
    assert whole.path == Path("data/x")
    assert whole.steps == 7
    assert type(whole.steps) is int
    assert whole.words == ("a.*",)
    assert build(Whole, dump(whole)) == whole


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"parts": {}}, "unknown setting 'parts'", "part"),
        ({"part": {"widht": 3}}, "unknown setting 'part.widht'", "width"),
        ({"part": {"width": 2.5}}, "part.width must be a whole number, got 2.5", ""),
        ({"part": {"width": True}}, "part.width must be a whole number, got True", ""),
        ({"part": {"width": -2}}, "part.width must be greater than zero, got -2", ""),
        ({"part": 3}, "part is a section", "part.<setting>"),
        ({"part": {"rate": "fast"}}, "part.rate must be a number, got 'fast'", ""),
        ({"kind": "c"}, "kind cannot be 'c'; choose from 'a', 'b'", ""),
        ({"chosen": {"name": "othr"}}, "unknown chosen 'othr'", "other"),
        ({"chosen": {"text": "y"}}, "chosen.name is missing", "part, other"),
        ({"chosen": {"name": "part", "text": "y"}}, "unknown setting 'chosen.text'", ""),
        ({"pair": [1, 2, 3]}, "pair must have 2 entries, got 3", ""),
        ({"pair": 1}, "pair must be a list", ""),
        ({"names": [1]}, "names[0] must be a text, got 1", ""),
        ({"flag": "yes"}, "flag must be true or false, got 'yes'", ""),
    ],
)
def test_mistakes_name_the_key(table: dict, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Whole, table)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_choice_made_by_its_name_alone_takes_settings() -> None:
    table = {"model": {"mixer": {"name": "attention"}}}
    assert override(table, ["model.mixer=s4", "model.mixer.states=6"]) == {
        "model": {"mixer": {"name": "s4", "states": 6}}
    }
    assert override(table, ["model.mixer=s4", "model.mixer.name=dlr"]) == {"model": {"mixer": {"name": "dlr"}}}
    with pytest.raises(ConfigError, match="layers holds a single value") as error:
        override({"model": {"layers": 2}}, ["model.layers.many=3"])
    assert error.value.hint == "write -s model.layers=... to change that"


def test_overrides_read_toml_values_and_bare_words() -> None:
    table = {"part": {"width": 5}, "chosen": {"name": "part", "width": 9}}
    changed = override(table, ["part.rate=1e-3", "kind=b", "names=['x', 'y']", "flag=true", "chosen.name=other"])
    assert build(Whole, changed) == Whole(
        part=Part(width=5, rate=1e-3), kind="b", names=("x", "y"), flag=True, chosen=Other()
    )
    assert table == {"part": {"width": 5}, "chosen": {"name": "part", "width": 9}}  # the original is left alone


@pytest.mark.parametrize("assignment", ["width", "=3", "part..width=3"])
def test_unreadable_overrides(assignment: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the setting"):
        override({}, [assignment])


@given(
    width=st.integers(1, 2**40),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    names=st.lists(st.text(max_size=5), max_size=3),
    pair=st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)),
)
def test_toml_round_trip_is_exact(width: int, rate: float, names: list[str], pair: tuple[float, float]) -> None:
    whole = Whole(part=Part(width=width, rate=rate), names=tuple(names), pair=pair)
    assert build(Whole, tomllib.loads(tomli_w.dumps(dump(whole)))) == whole


@pytest.mark.parametrize("name", presets.descriptions())
def test_every_preset_is_a_run_and_survives_a_round_trip(name: str) -> None:
    config = run.from_table(presets.read_table(name))
    text = tomli_w.dumps(run.to_table(config))
    assert run.from_table(tomllib.loads(text)) == config
    assert run.fingerprint(run.from_table(tomllib.loads(text))) == run.fingerprint(config)


def test_fingerprint_depends_on_every_setting() -> None:
    table = presets.read_table("textures")
    prints = {
        run.fingerprint(run.from_table(override(table, [change])))
        for change in (
            "seed=0",
            "seed=1",
            "model.d_model=32",
            "pretrain.objective.ratio=0.3",
            "finetune.optimizer.lr=0.1",
        )
    }
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.d_model=65"], "model.d_model must be divisible by heads"),
        (["model.heads=0"], "model.heads must be greater than zero"),
        (["pretrain.epochs=-1"], "pretrain.epochs must be greater than zero"),
        (["pretrain.objective.ratio=0"], "pretrain.objective.ratio must lie between 0 and 1"),
        (["finetune.transfer=kq"], "finetune.transfer 'kq' is no named set"),
        (["task.side=1"], "task.side must be at least 2"),
        (["task.name=texture"], "unknown task 'texture'"),
        (["task.name=fashion-mnist", "task.side=13"], "task.side must be one of"),
        (["finetune.optimizer.warmup=1.5"], "finetune.optimizer.warmup must be a share"),
        (["seed=-1"], "seed must not be negative"),
        (["pretrained=x.pt"], "pretrained replaces the pretrain section"),
    ],
)
def test_impossible_runs_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run.from_table(override(presets.read_table("textures"), changes))
    assert message in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        presets.read_table(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[task\n")
    with pytest.raises(ArtifactError, match="not valid TOML"):
        presets.read_table(str(broken))
    with pytest.raises(ConfigError, match="unknown preset") as caught:
        presets.read_table("textuers")
    assert "textures" in caught.value.hint


DEEP = "[" * 5000 + "]" * 5000
HOSTILE = [
    f"seed = {DEEP}",
    "seed = " + "{a = " * 5000 + "1" + "}" * 5000,
    ".".join(["a"] * 5000) + " = 1",
    "[" + ".".join(["a"] * 5000) + "]",
    "seed = " + "9" * 5000,
    "seed = 1" + "0" * 400,
    "[finetune.optimizer]\nlr = 1" + "0" * 400,
    "seed = " + str([[0] * 1000] * 201),
    '"\\u001b[31m" = 1',
    '"\\n" = 1',
    "seed = 1979-05-27",
    "seed = 'x",
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_settings_are_one_line_with_a_hint(text: str, tmp_path: Path) -> None:
    """Deep nesting, endless numbers, keys that cannot be printed."""
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises((ArtifactError, ConfigError)) as caught:
        run.from_table(presets.read_table(str(path)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert caught.value.hint


@pytest.mark.parametrize(
    "assignment",
    [
        f"seed={DEEP}",
        ".".join(["a"] * 5000) + "=1",
        "seed=" + "9" * 5000,
        "finetune.optimizer.lr=1" + "0" * 400,
        "finetune.optimizer.lr=1e999",
        "finetune.optimizer.warmup=inf",
        "finetune.optimizer.warmup=nan",
        "finetune.optimizer.betas=[0.9, inf]",
        "seed=1\nmodel=2",
        "\x1b=1",
        "seed.x=1",
        "model=3",
        "task=[1]",
        "task.name=" + "x" * 10**6,
        "model.init=[[[[[[[[[[1]]]]]]]]]]",
    ],
)
def test_hostile_assignments_are_one_line_with_a_hint(assignment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run.from_table(override(presets.read_table("textures"), [assignment]))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert caught.value.hint


@pytest.mark.parametrize("value", [10**30, 10**400])
def test_numbers_beyond_64_bits_are_refused(value: int) -> None:
    for table in ({"part": {"width": value}}, {"part": {"rate": value}}, {"steps": value}):
        with pytest.raises(ConfigError, match="64 bits"):
            build(Whole, table)


def test_a_refused_value_says_what_the_default_is() -> None:
    for table, hint in (({"part": {"rate": "fast"}}, "0.5"), ({"part": {"width": -2}}, "3"), ({"path": 3}, "left out")):
        with pytest.raises(ConfigError) as caught:
            build(Whole, table)
        assert hint in caught.value.hint


def test_the_mark_that_some_editors_put_before_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert read_toml(tmp_path / "run.toml") == {"seed": 3}
