"""Python source as data: names, classes, values and comments of attnprobe's own modules, without importing them."""

import ast
import dataclasses
import functools
import io
import operator
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow}


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    name: str  # dotted
    tree: ast.Module
    comments: dict[int, tuple[str, bool]]  # line -> text, and whether the line holds nothing else

    def resolve(self, name: str) -> tuple["Module", ast.expr | ast.ClassDef]:
        """The class or the value that a name of this module stands for, and the module where it was written."""
        for node in _statements(self.tree.body):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return self, node
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return read_module(node.module).resolve(alias.name)
            for target, value in _assignments(node):
                if isinstance(target, ast.Name) and target.id == name:
                    return self, value
        raise LookupError(f"{self.name} does not say what {name} is")

    def comment(self, node: ast.stmt) -> str:
        """The comment lines right above a statement, then the comments on its own lines."""
        first = node.lineno
        while self.comments.get(first - 1, ("", False))[1]:
            first -= 1
        lines = range(first, (node.end_lineno or node.lineno) + 1)
        return " ".join(self.comments[line][0] for line in lines if line in self.comments)


@dataclasses.dataclass(frozen=True)
class Class:
    module: Module
    node: ast.ClassDef

    def bases(self) -> list["Class"]:
        """Those that are attnprobe's own."""
        return [find(self.module, base.id) for base in self.node.bases if isinstance(base, ast.Name)]

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, in one line."""
        return " ".join((ast.get_docstring(self.node) or "").partition("\n\n")[0].split())


@functools.cache
def read_module(name: str) -> Module:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("# ").partition("# noqa")[0].partition("# pyright")[0].strip()
            comments[token.start[0]] = (words, not token.line[: token.start[1]].strip())
    return Module(name, ast.parse(text), comments)


def find(module: Module, name: str) -> Class:
    home, node = module.resolve(name)
    assert isinstance(node, ast.ClassDef), name
    return Class(home, node)


def value_of(module: Module, node: ast.expr) -> Any:
    """A constant expression's value; names stand for the module's constants."""
    if isinstance(node, ast.Name):
        home, value = module.resolve(node.id)
        assert isinstance(value, ast.expr)
        return value_of(home, value)
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value_of(module, node.left), value_of(module, node.right))
    return ast.literal_eval(node)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under ``if TYPE_CHECKING`` included."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body)
        else:
            yield node


def _assignments(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of an assignment, one for each of ``A, B = 1, 2``."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        elif node.value is not None:
            yield target, node.value
