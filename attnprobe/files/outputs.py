"""Files that a command writes where a person says: how they are called, and which of those there may be replaced."""

import json
import re
import stat
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from attnprobe.errors import ConfigError

Kind = Literal["rows", "arrays", "figure", "benchmark", "demo summary", "calibration", "report", "study"]

FIGURE_METADATA: dict[str, dict[str, str | None]] = {  # by which a figure of ours is told from a stranger's
    ".png": {"Software": "attnprobe"},
    ".pdf": {"Creator": "attnprobe", "CreationDate": None},  # without a date, the same figure is the same bytes
}
OTHER_PICTURES = (".jpg", ".jpeg", ".svg", ".eps", ".ps", ".gif", ".tif", ".tiff", ".webp", ".bmp")
EDGE = 1 << 14  # bytes at either end of a figure in which its metadata stand
ROW = {b"quantity", b"estimate", b"low", b"high", b"level", b"n", b"unit", b"p_value", b"q_value"}  # in every heading
CALIBRATION_ROW = {b"cell", b"probe", b"nominal", b"rate", b"replicas", b"refused", b"verdict"}
CALIBRATION_START = re.compile(rb"`attnprobe calibrate\b[^\n]*`, \d{4}-\d\d-\d\d")
REPORT_SIGN = b'<meta name="generator" content="attnprobe report '
STUDY_ROW = ({b"seed", b"trial", b"number", b"value", b"run"}, {b"table", b"number", b"seeds", b"spread", b"holm"})
STUDY_START = (b"<!-- attnprobe study render ", b"% attnprobe study render ")
PAGE_START = re.compile(rb"`attnprobe bench\b[^\n]*`, \d{4}-\d\d-\d\d")  # the command that made it, and when


def figure_files(name: Path) -> list[Path]:
    """The files of one figure: ``f.png`` or ``f.pdf`` is that one file, any other name the stem of both.

    ConfigError if its ending is that of another kind of pictures.
    """
    if name.suffix.lower() in OTHER_PICTURES:
        raise ConfigError(f"{name}: figures are .png or .pdf", hint="take one of these endings, or none for both")
    if name.suffix.lower() in FIGURE_METADATA:
        return [name]
    return [name.with_name(name.name + ending) for ending in FIGURE_METADATA]


def further_figure(name: Path, what: str) -> Path:
    """The name of another figure of the same command: ``f_<what>.png`` beside ``f.png``, ``f_<what>`` beside ``f``."""
    ending = name.suffix if name.suffix.lower() in FIGURE_METADATA else ""
    return name.with_name(f"{name.name.removesuffix(ending)}_{what}".replace("/", "-") + ending)


def check_outputs(outputs: Sequence[tuple[str, Kind, Sequence[Path]]], inputs: Sequence[Path] = ()) -> None:
    """See that every file a command is about to write can be written and costs nobody anything.

    outputs: what a person calls it (the option), what is written there, and its files. Makes their folders and tries
    to write there. Raises ConfigError if a file cannot be written, is an input, is named twice, or exists and is not
    of that kind of ours.
    """
    taken = {path.resolve(): "an input" for path in inputs}
    for option, kind, files in outputs:
        for file in files:
            if file.is_dir():
                raise ConfigError(f"{option} {file} is a folder", hint="give the path of a file in it")
            if file.resolve() in taken:
                raise ConfigError(f"{option} {file} is also {taken[file.resolve()]}", hint="give it a path of its own")
            taken[file.resolve()] = f"the file of {option}"
            check_replaceable(file, kind, option)
        for folder in {file.parent for file in files}:
            _try_to_write(folder, option, files[0])


def check_replaceable(path: Path, kind: Kind, option: str = "") -> None:
    """ConfigError if ``path`` exists and is neither empty nor a file of that ``kind`` which attnprobe wrote."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be read: {error.strerror}".lstrip(),
            hint="choose another file name, or allow the file to be read",
        ) from None
    plain = stat.S_ISREG(found.st_mode)
    if plain and (found.st_size == 0 or _is_ours(path, kind)):
        return
    reason = f"is no {kind} file written by attnprobe" if plain else "is no plain file"
    hint = "give the option a name of its own; what stands there is not replaced"
    if path.suffix == ".pt":
        hint = f"was the file name after {option or 'the option'} forgotten? What stands there is not replaced"
    raise ConfigError(f"{option} {path} exists and {reason}".lstrip(), hint=hint)


def _try_to_write(folder: Path, option: str, file: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{option} {file} cannot be written: {error.strerror or error}"
        raise ConfigError(reason, hint="choose a folder that can be written") from error


def _is_ours(path: Path, kind: Kind) -> bool:
    try:
        return SIGNS[kind](path)
    except Exception:  # not even of that format, which parsers say in many ways
        return False


def _is_rows(path: Path) -> bool:
    """Tidy rows: a CSV whose heading names all that every measurement of ours has."""
    with path.open("rb") as file:
        heading = file.readline(EDGE)
    return set(heading.strip().split(b",")) >= ROW


def _is_arrays(path: Path) -> bool:
    """Arrays that come with the names of their axes, a JSON text."""
    import numpy as np

    if not zipfile.is_zipfile(path):  # numpy would read a single array whole
        return False
    with np.load(path, allow_pickle=False) as arrays:
        axes = arrays[next(name for name in arrays if name.rpartition("/")[2] == "axes")]
    return axes.dtype.kind == "U" and isinstance(json.loads(axes.item()), dict)


def _is_figure(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(EDGE)
        file.seek(max(0, path.stat().st_size - EDGE))
        end = file.read()
    if start.startswith(b"\x89PNG"):
        return b"tEXtSoftware\0attnprobe" in start
    return start.startswith(b"%PDF") and b"/Creator (attnprobe)" in start + end


def _is_benchmark(path: Path) -> bool:
    if path.suffix == ".md":
        with path.open("rb") as file:
            return PAGE_START.match(file.read(EDGE)) is not None
    return {"command", "surroundings"} <= _keys(path)


def _is_demo_summary(path: Path) -> bool:
    return {"accuracy", "gain", "proximity", "theory"} <= _keys(path)


def _is_calibration(path: Path) -> bool:
    """Rows, a page, or the records of replicas, whose first line says what they depend on."""
    with path.open("rb") as file:
        heading = file.readline(EDGE)
    if heading.startswith(b"{"):
        return "calibration" in json.loads(heading)
    return set(heading.strip().split(b",")) >= CALIBRATION_ROW or CALIBRATION_START.match(heading) is not None


def _is_report(path: Path) -> bool:
    """A page whose head says that this is what it is."""
    with path.open("rb") as file:
        start = file.read(EDGE)
    return start.lstrip().startswith(b"<!DOCTYPE html>") and REPORT_SIGN in start


def _is_study(path: Path) -> bool:
    """Rows, a page, or the manifest of what was rendered."""
    if path.suffix == ".json":
        return {"made by", "study", "scale", "runs asked for"} <= _keys(path)
    with path.open("rb") as file:
        heading = file.readline(EDGE)
    columns = set(heading.strip().split(b","))
    return heading.startswith(STUDY_START) or any(columns >= named for named in STUDY_ROW)


def _keys(path: Path) -> set[str]:
    document = json.loads(path.read_bytes())
    return set(document) if isinstance(document, dict) else set()


SIGNS: dict[Kind, Callable[[Path], bool]] = {
    "rows": _is_rows,
    "arrays": _is_arrays,
    "figure": _is_figure,
    "benchmark": _is_benchmark,
    "demo summary": _is_demo_summary,
    "calibration": _is_calibration,
    "report": _is_report,
    "study": _is_study,
}
