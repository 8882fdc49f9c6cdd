"""Messages stay one line, whatever stands in a file or a path; every exception is explained."""

from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError, RunError, explain, one_line, shown
from attnprobe.files import check_plain, parse_json, read_json, reading


def entangled(levels: int) -> list:
    """A few lists that hold each other: 2 ** levels values when printed."""
    value: list = []
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "tab\t", "\udcff bytes", "\u202e turned"])
def test_unprintable_characters_become_escapes(text: str) -> None:
    assert one_line(text).isprintable()
    assert str(ArtifactError(text, hint=text)).isprintable()
    assert ArtifactError(text, hint=text).hint.isprintable()


def test_long_messages_are_cut_in_the_middle() -> None:
    text = one_line("a" * 10_000 + "end")
    assert len(text) < 2100
    assert text.startswith("aaa")
    assert text.endswith("end")


@pytest.mark.parametrize("value", [entangled(60), "x" * 10**6, {"a": entangled(60)}, list(range(10**6))])
def test_values_are_shown_shortly(value: object) -> None:
    assert len(shown(value)) < 500


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7000 bytes."), "7000 bytes"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), "20.00 GiB"),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "internal error: RecursionError: maximum"),
        (OverflowError("too large"), "internal error: OverflowError: too large"),
        (ZeroDivisionError(), "internal error: ZeroDivisionError"),
        (OSError(28, "No space left on device"), "the system refused"),
        (RuntimeError("Symlink loop from '/x'"), "the system refused"),
    ],
)
def test_every_exception_is_one_line_with_a_hint(error: Exception, words: str) -> None:
    found = explain(error)
    assert isinstance(found, RunError)
    assert words in str(found)
    assert found.hint


def test_a_mistake_of_the_user_stays_what_it_is() -> None:
    error = ConfigError("no", hint="yes")
    assert explain(error) is error


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), RecursionError(), MemoryError(), KeyError("x"), RuntimeError(), OSError(5, "broken")]
)
def test_what_parsers_say_becomes_one_line_that_names_the_file(error: Exception) -> None:
    with pytest.raises(ArtifactError, match=r"file\.bin cannot be read: .+") as caught, reading(Path("file.bin")):
        raise error
    assert caught.value.hint
    assert caught.value.__cause__ is error


def test_a_missing_file_is_said_to_be_missing() -> None:
    with pytest.raises(ArtifactError, match="does not exist"), reading(Path("none")):
        Path("none").read_text()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (entangled(24), "too many values"),
        (entangled(60), "too deep"),
        ({"n": 10**400}, "64 bits"),
        ({("a", "b"): 1}, "keys that are no texts"),
        ({"f": print}, "no plain value"),
        ({"s": {1, 2}}, "no plain value"),
    ],
)
def test_documents_that_are_not_plain(document: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_plain(document)


def test_plain_documents_pass() -> None:
    check_plain({"a": [1, 2.5, None, True, ("x", {"b": float("inf")})], "c": {}, 3: -(2**63)})


@pytest.mark.parametrize("text", ["3", "[1]", "", "{", "[" * 10**5, '{"n": ' + "9" * 5000 + "}", "null", '"x"'])
def test_json_that_is_no_table(text: str, tmp_path: Path) -> None:
    """A result.json that holds 3, among others."""
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        read_json(path)
    assert caught.value.hint
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_json(path)
    path.write_text('{"a": 1}')
    assert read_json(path) == parse_json('{"a": 1}') == {"a": 1}
