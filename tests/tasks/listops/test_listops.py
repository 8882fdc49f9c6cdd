import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.config import build, dump
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.tasks.data import MASK_ID
from attnprobe.tasks.listops import published
from attnprobe.tasks.listops import task as listops
from attnprobe.tasks.listops.grammar import EOS_ID, PAD_ID, VOCABULARY, Grammar
from attnprobe.tasks.listops.task import ListOps, collect
from attnprobe.tasks.sources import generated
from attnprobe.tasks.sources.catalogue import LISTOPS_FILES

SMALL = ListOps(min_length=20, max_length=100, n_train=1_000, n_validation=53, n_test=47)


def test_the_vocabulary_is_that_of_the_protocol() -> None:
    assert VOCABULARY[:4] == ("<mask>", "<pad>", "<unk>", "<eos>")
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 19
    assert VOCABULARY[MASK_ID] == "<mask>"


def test_sequences_end_with_eos_and_are_padded() -> None:
    data = SMALL.load()
    assert (data.spec.length, data.spec.classes, data.spec.vocabulary) == (100, 10, 19)
    assert [len(split) for split in data.splits().values()] == [1_000, 53, 47]
    for split in data.splits().values():
        assert split.inputs.dtype == torch.uint8
        assert split.inputs.shape == (len(split), 100)
        assert split.lengths is not None
        position = torch.arange(100)
        assert ((split.inputs == EOS_ID) == (position == split.lengths[:, None] - 1)).all()
        assert ((split.inputs == PAD_ID) == (position >= split.lengths[:, None])).all()
        assert split.lengths.min() > 21
        assert split.lengths.max() <= 100
        assert (split.inputs != MASK_ID).all()
        assert split.labels.min() >= 0
        assert split.labels.max() <= 9


def test_all_expressions_differ() -> None:
    data = ListOps(min_length=3, max_length=9, n_train=1_500, n_validation=100, n_test=100).load()
    rows = torch.cat([split.inputs for split in data.splits().values()])
    assert len(torch.unique(rows, dim=0)) == 1_700


def test_the_seed_decides() -> None:
    assert SMALL.load().fingerprint() == SMALL.load().fingerprint()
    assert SMALL.load().fingerprint() != dataclasses.replace(SMALL, data_seed=1).load().fingerprint()
    golden = "fcf22e0f89b31747"  # a change here means other data: raise listops.VERSION
    assert SMALL.load().fingerprint()[:16] == golden


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing() -> None:
    grammar = Grammar(min_length=20, max_length=60)
    one, two = (collect(grammar, 2_500, 7, workers=workers) for workers in (1, 2))
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name))


def test_too_few_different_expressions() -> None:
    with pytest.raises(ConfigError, match="different expressions"):
        ListOps(min_length=3, max_length=5, max_depth=2, n_train=5_000).load()  # 4 * 100 exist


def test_large_sets_are_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    fresh = SMALL.load()
    monkeypatch.setattr(listops, "LARGE", 10)
    monkeypatch.setattr(generated, "cores", lambda: 1)
    assert SMALL.load().fingerprint() == fresh.fingerprint()
    (folder,) = (path for path in (tmp_path / "generated").iterdir() if path.is_dir())
    assert np.load(folder / "tokens.npy").dtype == np.uint8
    assert np.load(folder / "offsets.npy").dtype == np.int32
    monkeypatch.setattr(listops, "collect", None)  # not called again
    assert SMALL.load().fingerprint() == fresh.fingerprint()
    (folder / "settings.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not made with the settings"):
        SMALL.load()


def parenthesised(tokens: list[str]) -> str:
    """The benchmark's files bracket every step: ( ( ( [SM 3 ) 5 ) ] )."""
    stack: list[list[str]] = []
    for token in tokens:
        if token.startswith("["):
            stack.append([token])
            continue
        if token == "]":
            whole = stack[-1][0]
            for argument in [*stack.pop()[1:], "]"]:
                whole = f"( {whole} {argument} )"
            token = whole
        if not stack:
            return token
        stack[-1].append(token)
    raise AssertionError(tokens)


def write_published(folder: Path, task: ListOps) -> None:
    folder.mkdir(parents=True)
    for split, file in zip(task.load().splits().values(), LISTOPS_FILES.values(), strict=True):
        assert split.lengths is not None
        rows = [
            f"{parenthesised(listops.text(tokens[: length - 1].numpy()).split())}\t{label}"
            for tokens, length, label in zip(split.inputs, split.lengths, split.labels, strict=True)
        ]
        (folder / file).write_text("\r\n".join(["Source\tTarget", *rows, ""]))


def test_published_files_are_read_back(tmp_path: Path) -> None:
    assert parenthesised(["[SM", "3", "5", "]"]) == "( ( ( [SM 3 ) 5 ) ] )"
    write_published(tmp_path / "listops-1000", SMALL)
    task = dataclasses.replace(SMALL, source="published")
    assert task.load(tmp_path).fingerprint() == SMALL.load().fingerprint()
    assert len(dataclasses.replace(task, n_train=10).load(tmp_path).train) == 10
    short = dataclasses.replace(task, max_length=30).load(tmp_path).train
    assert short.inputs.shape[1] == 30
    assert short.lengths is not None
    assert short.lengths.max() == 30
    assert (short.inputs[short.lengths == 30, 29] == EOS_ID).all()


def test_cut_expressions_are_counted(tmp_path: Path) -> None:
    write_published(tmp_path / "listops-1000", SMALL)
    task = dataclasses.replace(SMALL, source="published")
    assert set(task.load(tmp_path).notes.values()) == {0.0}
    assert SMALL.load().notes == {}
    notes = dataclasses.replace(task, max_length=40).load(tmp_path).notes
    for name, split in SMALL.load().splits().items():
        assert split.lengths is not None
        assert notes[f"truncated_share_{name}"] == (split.lengths > 40).double().mean().item() > 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("( [MIN 3 ) 5 ) ] )", "line 2"),
        ("[MIN 3 5 ]\t12", "digit"),
        ("[FIRST 3 5 ]\t3", "unknown token"),
        ("", "line"),
        ("( ( ( [SM 3 ) 5 ) ] )\t7", "line 2 gives the value 7, but its expression has the value 8"),
        ("( ( ( [SM 3 ) 5 ) ]\t8", "line 2 has parentheses that do not match"),
        (") ( ( [SM 3 ) 5 ) ] (\t8", "line 2 has parentheses that do not match"),
        ("[SM 3 5\t8", r"line 2 has brackets \[ and \] that do not match"),
        ("[SM 3 ] 5\t8", r"line 2 has brackets"),
        ("] [SM 3 5\t8", r"line 2 has brackets"),
        ("3 5\t3", r"line 2 has brackets"),
        ("[SM 3 [MAX ] ]\t3", "line 2 has an operator without arguments"),
        ("( )\t3", "line 2 has no expression"),
        (" \t3", "line 2 has no expression"),
        ("[SM " * 1001 + "3" + " ]" * 1001 + "\t3", "line 2 is nested deeper than 1000"),
        ('"[SM 3 5 ]\t8\n[SM 3 5 ]\t8', "ends within a quoted field"),
        ("[SM 3 5 ]\t8\n\ufeff[SM 3 5 ]\t8", "line 3 has an unknown token"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, row: str, message: str) -> None:
    write_published(tmp_path / "listops", SMALL)
    (tmp_path / "listops" / "basic_val.tsv").write_text(f"Source\tTarget\n{row}\n")
    with pytest.raises(ArtifactError, match=message) as error:
        dataclasses.replace(SMALL, source="published").load(tmp_path)
    assert "basic_val.tsv" in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_the_line_of_an_error_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it lies in a block of lines that are checked together."""
    monkeypatch.setattr(published, "BLOCK", 7)
    path = tmp_path / "basic_val.tsv"
    for wrong in range(20):
        rows = ["[SM 3 [MAX 1 2 ] ]\t5"] * 20
        rows[wrong] = "[SM 3 [MAX 1 2 ] ]\t6"
        path.write_text("Source\tTarget\n" + "\n".join(rows))
        with pytest.raises(ArtifactError, match=f"line {wrong + 2} gives the value 6"):
            published.read_published(path, 100)


def value_of(tokens: list[str]) -> int:
    """The value of an expression, by a stack."""
    stack: list[list[int]] = [[]]
    operators: list[str] = []
    for token in tokens:
        if token.startswith("["):
            operators.append(token)
            stack.append([])
        elif token == "]":
            arguments = sorted(stack.pop())
            middle = (arguments[(len(arguments) - 1) // 2] + arguments[len(arguments) // 2]) // 2
            results = {"[MIN": arguments[0], "[MAX": arguments[-1], "[MED": middle, "[SM": sum(arguments) % 10}
            stack[-1].append(results[operators.pop()])
        else:
            stack[-1].append(int(token))
    return stack[0][0]


def trees() -> st.SearchStrategy[list[str]]:
    digits = st.integers(0, 9).map(lambda d: [str(d)])
    operators = st.sampled_from(["[MIN", "[MAX", "[MED", "[SM"])

    def apply(arguments: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
        lists = st.lists(arguments, min_size=1, max_size=5)
        return st.builds(lambda o, a: [o, *itertools.chain(*a), "]"], operators, lists)

    return st.recursive(digits, apply, max_leaves=20)


@given(st.lists(trees(), min_size=1, max_size=6), st.integers(0, 5))
def test_published_values_against_a_stack(expressions: list[list[str]], wrong: int) -> None:
    values = [value_of(tokens) for tokens in expressions]
    texts = [(parenthesised(tokens), " ".join(tokens)) for tokens in expressions]
    rows = [
        published.Line(i, whole.encode(), bytes(published.IDS[t.encode()] for t in plain.split()), value)
        for i, ((whole, plain), value) in enumerate(zip(texts, values, strict=True))
    ]
    found = published.checked(rows, Path("file"))
    assert found.values.tolist() == values
    assert [listops.text(np.frombuffer(t, np.uint8)).split() for t, _ in found.each()] == expressions
    wrong %= len(rows)
    rows[wrong] = rows[wrong]._replace(value=(values[wrong] + 1) % 10)
    with pytest.raises(ArtifactError, match=f"line {wrong} gives"):
        published.checked(rows, Path("file"))


def test_missing_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"basic_train\.tsv"):
        ListOps(source="published").load()


def test_settings_survive_a_table() -> None:
    assert build(ListOps, dump(SMALL)) == SMALL
    with pytest.raises(ConfigError, match="n_test"):
        ListOps(n_test=0)
