"""Every formula altered in every small way, to see that some row of the verification fails for each.

    python -m theory.mutants [--only NAME,NAME] [--alive]

A mutant is a function of `theory.predictions` with one place of its source changed: a sign, a factor, an exponent, a
dropped term, a swapped symbol, a function left out. It replaces the original in memory, and the rows that call it run
at a small size, cheap ones first, until one fails. What no row can tell is in EQUIVALENT, with the reason. Printed: one
line per mutant and what killed it; exit code 1 if one is alive.
"""

import argparse
import ast
import copy
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from theory import predictions
from theory.claims import (
    blind_subspace,
    class_differences,
    code_factors,
    detection,
    detection_moments,
    invariance,
    position_codes,
    proximity_ray,
    reconstruction,
)
from theory.rows import Row
from theory.setting import Setting

SETTING = Setting(length=7, dim=3, seed=1, draws=4000)
Part = Callable[[Setting], list[Row]]
PARTS: tuple[Part, ...] = (  # cheap ones first
    proximity_ray.rows,
    invariance.at_start,
    position_codes.first_steps,
    blind_subspace.rows,
    reconstruction.rows,
    detection_moments.rows,
    class_differences.rows,
    code_factors.rows,
    position_codes.rows,
    detection.rows,
)

# Mutants that compute the same number, by name, with the proof.
EQUIVALENT = {
    "class_gradient: direction -> first": "read for its length only: direction and statistics are all (L, L)",
    "class_gradient: direction -> second": "read for its length only: direction and statistics are all (L, L)",
    "proximity_derivative: kernel -> autocorrelation": "read for its length only: both are (L,)",
    "query_free_gradient: slopes -> projected (2)": "read for its length only: both have one entry per sequence",
    "query_free_gradient: profile - profile.max() -> profile + profile.max()": "a constant factor, divided out again",
    "query_free_gradient: profile - profile.max() -> profile": "a constant factor, divided out again",
    "query_free_gradient: profile -> projected (2)": "the maximum: a constant factor, divided out again",
    "query_free_gradient: profile -> slopes (2)": "the maximum: a constant factor, divided out again",
    "visible_share_limit: -1 -> 1": "q -> 1/q multiplies q^2, (1 - q)^2 and 1 + q^2 by q^-4, q^-2 and q^-2",
    "reconstruction_gradient: 0 -> 1": "sums over rows in place of columns: second moments are symmetric",
    "visibility: length + 1 -> length": "leaves out K = L, where nothing is visible: its terms are 0",
    "visibility: 1 -> 2 (4)": "adds K = L + 1, whose chance 1 / Gamma(0) is 0",
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """function: the altered one's name; kind: what was done; name: unique, says where; source: the altered source."""

    function: str
    kind: str
    name: str
    source: str


# Making mutants -------------------------------------------------------------------------------------------------------

OPERATORS: dict[type[ast.operator], tuple[str, type[ast.operator]]] = {
    ast.Add: ("sign", ast.Sub),
    ast.Sub: ("sign", ast.Add),
    ast.Mult: ("factor", ast.Div),
    ast.Div: ("factor", ast.Mult),
}
SWAPPED_CALLS = {"cos": "sin", "sinh": "cosh"}
DROPPED_CALLS = ("exp", "log", "log1p", "sqrt", "cos", "sin", "sinh", "cosh", "trace", "diag")


def functions() -> dict[str, types.FunctionType]:
    """Every prediction, and the helpers of their modules, by name."""
    modules = dict.fromkeys(sys.modules[getattr(predictions, name).__module__] for name in predictions.__all__)
    return {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }


def mutants(function: types.FunctionType) -> Iterator[Mutant]:
    """All mutants of one function, in the order of its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    seen: dict[str, int] = {}
    first = 0 if ast.get_docstring(definition) is None else 1
    places = [node for statement in definition.body[first:] for node in ast.walk(statement)]
    for place, node in enumerate(places):
        for kind, changed in _changes(node, _alike(definition)):
            mutated = copy.deepcopy(definition)
            target = [n for statement in mutated.body[first:] for n in ast.walk(statement)][place]
            altered = _Replace(target, changed).visit(mutated)
            name = f"{function.__name__}: {ast.unparse(node)} -> {ast.unparse(changed)}"
            seen[name] = seen.get(name, 0) + 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            yield Mutant(
                function=function.__name__, kind=kind, name=name, source=ast.unparse(ast.fix_missing_locations(altered))
            )


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, changed: ast.AST) -> None:
        self.target, self.changed = target, changed

    def visit(self, node: ast.AST) -> ast.AST:
        return self.changed if node is self.target else super().visit(node)


def _alike(definition: ast.FunctionDef) -> dict[str, list[str]]:
    """Per symbol the others that could stand in its place: arguments of the same type, names assigned together."""
    kinds: dict[str, str] = {}
    for argument in [*definition.args.args, *definition.args.kwonlyargs]:
        kinds[argument.arg] = "number" if ast.unparse(argument.annotation or argument) in ("int", "float") else "array"
    for statement in definition.body:
        if isinstance(statement, ast.Assign):
            names = [name.id for name in ast.walk(statement.targets[0]) if isinstance(name, ast.Name)]
            kinds |= dict.fromkeys(names, "assigned " + str(statement.lineno)) if len(names) > 1 else {}
    return {name: [other for other in kinds if other != name and kinds[other] == kind] for name, kind in kinds.items()}


def _changes(node: ast.AST, alike: dict[str, list[str]]) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
    """What can be done at one place: (kind, what stands there instead)."""
    match node:
        case ast.Return(value=ast.expr() as value):
            yield "sign", ast.Return(value=ast.UnaryOp(op=ast.USub(), operand=value))
            yield "factor", ast.Return(value=ast.BinOp(left=ast.Constant(value=2), op=ast.Mult(), right=value))
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in OPERATORS:
                kind, other = OPERATORS[type(op)]
                yield kind, ast.BinOp(left=left, op=other(), right=right)
            if isinstance(op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow):
                kept = (
                    "dropped term"
                    if isinstance(op, ast.Add | ast.Sub)
                    else "exponent"
                    if isinstance(op, ast.Pow)
                    else "factor"
                )
                yield kept, left
            if isinstance(op, ast.Add | ast.Sub):
                yield "dropped term", right
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield "sign", operand
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            yield "constant", ast.Constant(value=value + 1)
        case ast.Name(id=name, ctx=ast.Load()):
            for other in alike.get(name, []):
                yield "swapped symbol", ast.Name(id=other, ctx=ast.Load())
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=attribute) as called, args=[only], keywords=[]):
            if attribute in SWAPPED_CALLS:
                swapped = ast.Attribute(value=called.value, attr=SWAPPED_CALLS[attribute], ctx=ast.Load())
                yield "swapped function", ast.Call(func=swapped, args=[only], keywords=[])
            if attribute in DROPPED_CALLS:
                yield "dropped function", only
        case ast.Call(func=ast.Name(id="centre_rows" | "abs"), args=[only]):
            yield "dropped function", only
        case _:
            pass


# Killing them ---------------------------------------------------------------------------------------------------------


@contextmanager
def replaced(name: str, function: Callable[..., object]) -> Iterator[None]:
    """The prediction of a name replaced, in the package and in its module."""
    original = functions()[name]
    module = sys.modules[original.__module__]
    homes = [home for home in (module, predictions) if hasattr(home, name)]
    for home in homes:
        setattr(home, name, function)
    try:
        yield
    finally:
        for home in homes:
            setattr(home, name, original)


def users(setting: Setting) -> dict[str, list[Part]]:
    """Which parts call a prediction, found by running them once."""
    found: dict[str, list[Part]] = {name: [] for name in functions()}
    for part in PARTS:
        called: set[str] = set()
        with _recorded(called):
            assert all(row.passed for row in part(setting)), part.__module__
        for name in called:
            found[name].append(part)
    return found


@contextmanager
def _recorded(called: set[str]) -> Iterator[None]:
    originals = functions()
    modules = {sys.modules[function.__module__] for function in originals.values()} | {predictions}

    def recorder(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            called.add(name)
            return function(*arguments, **options)

        return call

    for name, function in originals.items():
        for module in modules:
            if hasattr(module, name):
                setattr(module, name, recorder(name, function))
    try:
        yield
    finally:
        for name, function in originals.items():
            for module in modules:
                if hasattr(module, name):
                    setattr(module, name, function)


def killer(mutant: Mutant, parts: Iterable[Part], setting: Setting = SETTING) -> str | None:
    """The first row that fails, or the error that stops a part; None if all rows pass."""
    original = functions()[mutant.function]
    space = dict(vars(sys.modules[original.__module__]))
    exec(compile(mutant.source, f"<mutant of {mutant.function}>", "exec"), space)
    with replaced(mutant.function, space[mutant.function]):
        for part in parts:
            try:
                failed = next((row for row in part(setting) if not row.passed), None)
            except Exception as error:
                return f"error: {type(error).__name__}"
            if failed is not None:
                return f"{failed.claim}: {failed.quantity}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m theory.mutants", description="Alter every formula; see it fail.")
    parser.add_argument("--only", help="predictions to alter, separated by commas")
    parser.add_argument("--alive", action="store_true", help="show only mutants that no row kills")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",") if options.only else list(functions())
    calls, counts = users(SETTING), {"row": 0, "error": 0, "equivalent": 0, "alive": 0}
    for name in wanted:
        for mutant in mutants(functions()[name]):
            found = killer(mutant, calls[name])
            state = "alive" if found is None else "error" if found.startswith("error") else "row"
            state = "equivalent" if found is None and mutant.name in EQUIVALENT else state
            counts[state] += 1
            if not options.alive or state in ("alive", "equivalent"):
                print(f"{state:10s} {mutant.kind:16s} {mutant.name}  |  {found or EQUIVALENT.get(mutant.name, '')}")
    print(", ".join(f"{state}: {count}" for state, count in counts.items()))
    return 1 if counts["alive"] else 0


if __name__ == "__main__":
    sys.exit(main())
