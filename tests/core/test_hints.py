"""Every error says what to do about it."""

import ast
from pathlib import Path

import attnprobe
from attnprobe import errors

PACKAGE = Path(attnprobe.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def raised_without_hint(text: str) -> list[str]:
    calls = [node.exc for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise)]
    wrong = []
    for call in calls:
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in KINDS:
            keywords = {keyword.arg for keyword in call.keywords}
            if len(call.args) < 2 and not keywords & {"hint", None}:
                wrong.append(ast.unparse(call))
    return wrong


def test_every_error_has_a_hint() -> None:
    files = PACKAGE.rglob("*.py")
    assert not {str(f.relative_to(PACKAGE)): found for f in files if (found := raised_without_hint(f.read_text()))}


def test_a_missing_hint_is_found() -> None:
    assert raised_without_hint("raise ConfigError('x')") == ["ConfigError('x')"]
    assert (
        raised_without_hint("raise errors.RunError('x', hint='y')\nraise RunError('a', 'b')\nraise ValueError('c')")
        == []
    )
