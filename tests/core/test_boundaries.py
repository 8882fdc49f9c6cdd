"""No parser is called outside of the boundary that turns its exceptions into one line."""

import ast
from pathlib import Path

import pytest

import attnprobe
from attnprobe.errors import ArtifactError
from attnprobe.files import reading

ROOT = Path(attnprobe.__file__).parent
PARSERS = {
    "torch.load", "np.load", "np.loadtxt", "np.genfromtxt", "np.fromfile", "np.frombuffer", "json.load", "json.loads",
    "tomllib.load", "tomllib.loads", "zipfile.ZipFile", "tarfile.open", "Image.open", "pickle.load",
    "pickle.loads", "pickle.Unpickler", "gzip.open", "gzip.decompress", "zlib.decompress", "lzma.open", "bz2.open",
    "struct.unpack", "struct.unpack_from", "wave.open", "wavfile.read", "csv.reader", "csv.DictReader",
    "torch.frombuffer", "scipy.io.loadmat",
}  # fmt: skip

# file, function -> why its parser stands outside of ``reading``
ALLOWED = {
    ("files/__init__.py", "parse_json"): "its callers stand within",
    ("config.py", "_parse_value"): "a word of the command line, refused as a setting",
    ("training/saved/documents.py", "persistent_load"): "called by read_document, which stands within",
    ("bench/fresh.py", "*"): "words of our own child process",
    ("tasks/characters.py", "*"): "bytes that were just encoded in memory",
    ("tasks/own/texts.py", "*"): "bytes that were just encoded in memory",
    ("tasks/listops/task.py", "*"): "bytes that were just joined in memory",
    ("tasks/listops/published.py", "*"): "bytes that were just joined in memory",
    ("files/outputs.py", "_is_arrays"): "_is_ours takes any exception for a no",
    ("files/outputs.py", "_is_calibration"): "_is_ours takes any exception for a no",
    ("files/outputs.py", "_keys"): "_is_ours takes any exception for a no",
    ("files/ownership.py", "read_marker"): "whatever cannot be read is no marker of ours",
    ("launch/workers.py", "_work"): "what the process that started this one has sent",
    ("studies/store/folder.py", "_object"): "whatever it stumbles on is read again by read_json",
    ("tasks/sources/archives.py", "*"): "naming_damage is a boundary that lets a full disk through",
    ("tasks/sources/pickles.py", "*"): "read_batch is a boundary of its own",
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def unguarded(source: str) -> list[tuple[str, str, int]]:
    """Calls of parsers outside of ``with reading(...)``: function, parser, line."""
    found = []

    def visit(node: ast.AST, function: str, inside: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
            inside = inside or any("reading" in ast.unparse(d) for d in node.decorator_list)
        if isinstance(node, ast.With):
            inside = inside or any(ast.unparse(item.context_expr).startswith("reading(") for item in node.items)
        if isinstance(node, ast.Call) and not inside and dotted(node.func) in PARSERS:
            found.append((function, dotted(node.func), node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, function, inside)

    visit(ast.parse(source), "", False)
    return found


def test_every_parser_stands_within_the_boundary() -> None:
    used, loose = set(), []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for function, parser, line in unguarded(path.read_text(encoding="utf-8")):
            reasons = {(name, function), (name, "*")} & set(ALLOWED)
            used |= reasons
            if not reasons:
                loose.append(f"{name}:{line} {parser} in {function}")
    assert not loose, "put `with reading(path):` around these, or allow them with a reason"
    assert used == set(ALLOWED), "allowed, but no longer there"


def test_parsers_are_not_imported_under_other_names() -> None:
    """``from json import loads`` would hide from the test above."""
    names = {parser.rpartition(".")[0]: set() for parser in PARSERS}
    for parser in PARSERS:
        module, _, function = parser.rpartition(".")
        names[module].add(function)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                hidden = {alias.name for alias in node.names} & names.get(node.module or "", set())
                assert not hidden, f"{path}: {hidden}"


@pytest.mark.parametrize(
    ("source", "n"),
    [
        ("import json\njson.loads('')", 1),
        ("def f(path):\n    with reading(path):\n        return json.loads('')", 0),
        ("def f(path):\n    with reading(path, 'h'), open(path) as file:\n        return np.load(file)", 0),
        ("def f(path):\n    with reading(path):\n        pass\n    return torch.load(path)", 1),
        ("def f(path):\n    with open(path) as file:\n        return gzip.open(file)", 1),
    ],
)
def test_the_walk_finds_what_it_should(source: str, n: int) -> None:
    assert len(unguarded(source)) == n


def test_the_command_line_computes_nothing() -> None:
    """Numbers come from rooms that Python users reach too; what the commands use of numpy and torch has a reason."""
    allowed = {
        ("probe/files.py", "numpy"): "writes arrays",
        ("bench.py", "torch"): "sets the number of threads",
        ("calibrate.py", "torch"): "names the device",
    }
    heavy = {"numpy", "scipy", "torch", "pandas", "statistics"}
    found = set()
    for path in sorted((ROOT / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {(path.relative_to(ROOT / "cli").as_posix(), m.partition(".")[0]) for m in modules}
    assert {place for place in found if place[1] in heavy} == set(allowed)


def test_what_a_file_lacks_is_said(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(ArtifactError, match="cannot be read: it has no 'objective'"), reading(path):
        raise KeyError("objective")
