"""What can be set in a run, with types, defaults and meanings, read from the sources of its dataclasses.

The modules are read and not imported: that would load torch, and completion on the command line must answer at once.
A field's meaning is the comment on its lines, or on the lines right above it.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

from attnprobe.settings.source_code import Class, Module, find, read_module, value_of

ROOT = ("attnprobe.run", "RunConfig")
CITATION = re.compile(r"[A-Z]\w+ et al\.,? \(?\d{4}\)?(?:, [Tt]able \w+)?")
WORDS = {"int": "int", "float": "float", "bool": "true or false", "str": "text", "Path": "path"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    key: str  # full and dotted: finetune.optimizer.lr
    of: tuple[str, ...] = ()  # the tasks or objectives that have it; empty = there whatever is chosen
    type: str
    default: Any  # None = not set, or no default if it is required
    required: bool = False
    values: tuple[Any, ...] = ()  # the only ones allowed; empty = any of the type
    limits: tuple[str, ...] = ()  # what else must hold
    meaning: str
    declared_in: str  # module and class

    @property
    def source(self) -> str:
        """Where the value comes from, as far as the meaning tells: a paper, published code, or our choice."""
        if cited := CITATION.search(self.meaning):
            return cited[0]
        if "publish" in self.meaning:
            return "published code"
        return "our choice" if "our choice" in self.meaning else ""

    @property
    def allowed(self) -> str:
        """In words; empty if any value of the type will do."""
        if not self.values:
            return "; ".join(self.limits)
        more = [limit for limit in self.limits if not all(str(value) in limit for value in self.values)]  # else it says
        return "; ".join([f"one of {', '.join(map(str, self.values))}", *more])

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]


@functools.cache
def all_settings() -> tuple[Setting, ...]:
    """Every setting of a run in the order of its dataclasses; what several choices inherit stands there once."""
    merged: dict[Setting, tuple[str, ...]] = {}
    for setting in _settings(find(read_module(ROOT[0]), ROOT[1])):
        alone = dataclasses.replace(setting, of=())
        merged[alone] = merged.get(alone, ()) + setting.of
    return tuple(dataclasses.replace(setting, of=of) for setting, of in merged.items())


@functools.cache
def sections() -> dict[str, str]:
    """Dotted name -> what the section is, from its docstring; choices count as section[name]."""
    return dict(_sections(find(read_module(ROOT[0]), ROOT[1]), ""))


@functools.cache
def _settings(cls: Class) -> tuple[Setting, ...]:
    """Of one dataclass, keys from there on."""
    found: list[Setting] = []
    limits = _limits(cls)
    for owner, field in _fields(cls):
        key, meaning = name_of(field), owner.module.comment(field)
        default, required, choices = _default(owner.module, field)
        kind, values, inner = _type(owner.module, field.annotation)
        if choices:
            kind, values = "text", tuple(choices)
        if inner is None or choices:
            home = f"{owner.module.name}.{owner.node.name}"
            own = Setting(
                key=f"{key}.name" if choices else key, type=kind, default=default, required=required, values=values,
                limits=tuple(limits.get(key, ())), meaning=meaning, declared_in=home,
            )  # fmt: skip
            found.append(own)
        parts = [((choice,), chosen) for choice, chosen in choices.items()] or ([((), inner)] if inner else [])
        for of, part in parts:
            found += [dataclasses.replace(s, key=f"{key}.{s.key}", of=of or s.of) for s in _settings(part)]
    return tuple(found)


def _sections(cls: Class, prefix: str) -> Iterator[tuple[str, str]]:
    for owner, field in _fields(cls):
        key = prefix + name_of(field)
        choices = _default(owner.module, field)[2]
        inner = _type(owner.module, field.annotation)[2]
        if choices:
            yield key, owner.module.comment(field)
            for choice, chosen in choices.items():
                yield f"{key}[{choice}]", chosen.summary
        elif inner:
            yield key, " ".join(filter(None, (inner.summary, owner.module.comment(field))))
            yield from _sections(inner, f"{key}.")


def _fields(cls: Class) -> list[tuple[Class, ast.AnnAssign]]:
    """Fields with the class that declares them, in the order of a dataclass: bases first, of these the last first."""
    found: dict[str, tuple[Class, ast.AnnAssign]] = {}
    for parent in reversed(cls.bases()):
        found |= {name_of(field): (owner, field) for owner, field in _fields(parent)}
    for node in cls.node.body:
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            found[name_of(node)] = (cls, node)
    return list(found.values())


def name_of(field: ast.AnnAssign) -> str:
    assert isinstance(field.target, ast.Name)
    return field.target.id


def _default(module: Module, field: ast.AnnAssign) -> tuple[Any, bool, dict[str, Class]]:
    """The default, whether there is none, and the dataclasses to choose from."""
    value = field.value
    choices: dict[str, Class] = {}
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        options = {keyword.arg: keyword.value for keyword in value.keywords}
        if "metadata" in options:
            [table] = options["metadata"].values  # pyright: ignore[reportAttributeAccessIssue]
            home, entries = module.resolve(table.id)
            assert isinstance(entries, ast.Dict)
            names = [(value_of(home, k), v) for k, v in zip(entries.keys, entries.values, strict=True) if k]
            choices = {name: find(home, v.id) for name, v in names}  # pyright: ignore[reportAttributeAccessIssue]
        if "default" not in options:
            return None, "default_factory" not in options, choices
        value = options["default"]
        if choices and isinstance(value, ast.Call):
            chosen = ast.unparse(value.func)
            return next(name for name, cls in choices.items() if cls.node.name == chosen), False, choices
    if value is None or isinstance(value, ast.Call):  # a call makes a section, whose settings have their own defaults
        return None, value is None, choices
    return value_of(module, value), False, choices


def _type(module: Module, annotation: ast.expr) -> tuple[str, tuple[Any, ...], Class | None]:
    """In words; the only values allowed; the dataclass if it is a section."""
    parts = [p for p in _alternatives(annotation) if not (isinstance(p, ast.Constant) and p.value is None)]
    words, values = [], []
    for part in parts:
        if isinstance(part, ast.Name) and part.id in WORDS:
            words.append(WORDS[part.id])
        elif isinstance(part, ast.Subscript) and ast.unparse(part.value) == "tuple":
            assert isinstance(part.slice, ast.Tuple)
            words.append(f"list of {WORDS[ast.unparse(part.slice.elts[0])]}")
        elif isinstance(part, ast.Name):
            home, node = module.resolve(part.id)
            if isinstance(node, ast.ClassDef):
                return part.id, (), Class(home, node)
            kind, more, inner = _type(home, node)  # pyright: ignore[reportArgumentType]
            if inner:
                return kind, more, inner
            words.append(kind)
            values += more
        else:
            assert isinstance(part, ast.Subscript), ast.unparse(part)
            assert ast.unparse(part.value) == "Literal", ast.unparse(part)
            values += _literals(module, part.slice)
            words.append("int" if all(isinstance(v, int) for v in values) else "text")
    return " or ".join(dict.fromkeys(words)), tuple(values), None


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        return [*_alternatives(annotation.left), *_alternatives(annotation.right)]
    return [annotation]


def _literals(module: Module, node: ast.expr) -> list[Any]:
    """The values of a Literal, those of other Literals named in it included."""
    if isinstance(node, ast.Tuple):
        return [value for part in node.elts for value in _literals(module, part)]
    if isinstance(node, ast.Name):
        home, alias = module.resolve(node.id)
        assert isinstance(alias, ast.Subscript)
        return _literals(home, alias.slice)
    return [value_of(module, node)]


def _limits(cls: Class) -> dict[str, list[str]]:
    """Field -> what the class's own checks (``require``, ``require_positive``) demand of it."""
    found: dict[str, list[str]] = {}
    for parent in cls.bases():
        for name, limits in _limits(parent).items():
            found.setdefault(name, []).extend(limits)
    for check in _checks(cls):
        loops = [node for node in ast.walk(check) if isinstance(node, ast.For)]
        names = {ast.unparse(loop.target): loop.iter for loop in loops if isinstance(loop.iter, ast.Tuple)}
        for call in (node for node in ast.walk(check) if isinstance(node, ast.Call)):
            for name, limit in _demands(call, names):
                found.setdefault(name, []).append(limit)
    return found


def _checks(cls: Class) -> list[ast.FunctionDef]:
    """``__post_init__``, and the methods that it calls."""
    methods = {node.name: node for node in cls.node.body if isinstance(node, ast.FunctionDef)}
    if "__post_init__" not in methods:
        return []
    first = methods["__post_init__"]
    called = (ast.unparse(node.func) for node in ast.walk(first) if isinstance(node, ast.Call))
    return [first, *(methods[name[5:]] for name in called if name.startswith("self.") and name[5:] in methods)]


def _demands(call: ast.Call, loops: dict[str, ast.Tuple]) -> Iterator[tuple[str, str]]:
    function = ast.unparse(call.func)
    if function == "require_positive":
        for name in call.args[1:]:
            if isinstance(name, ast.Constant):
                yield str(name.value), "must be greater than zero"
    elif function == "require":
        field, message = call.args[1:3]
        texts = message.values if isinstance(message, ast.JoinedStr) else [message]
        if not texts or not isinstance(texts[0], ast.Constant):
            return
        text = str(texts[0].value).removesuffix(", got ")
        if len(texts) > 1 and text == texts[0].value:
            return  # a sentence that only values complete
        fields = loops[field.id].elts if isinstance(field, ast.Name) and field.id in loops else [field]
        for name in fields:
            if isinstance(name, ast.Constant):
                yield str(name.value), text
