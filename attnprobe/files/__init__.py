"""Files: reading what may be damaged, writing so that nobody sees half of one, JSON that every reader understands."""

import datetime
import hashlib
import json
import math
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from attnprobe.errors import ArtifactError, AttnprobeError, RunError

DEEPEST, MOST_NODES = 32, 200_000  # of a document of plain values
LONGEST_REASON = 300  # characters of what a parser says
ROOM = "choose a folder that exists and can be written, or free some space"
DATES = (datetime.date, datetime.time)  # which TOML knows


@contextmanager
def reading(path: Path, hint: str = "was it copied or downloaded completely?") -> Iterator[None]:
    """The boundary around every parser: whatever it says about a damaged or foreign file becomes one ArtifactError.

    The original exception stays its cause, so ATTNPROBE_DEBUG=1 still shows where a parser stumbled.
    """
    try:
        yield
    except AttnprobeError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist", hint="check the path") from error
    except MemoryError as error:
        raise ArtifactError(f"{path} cannot be read: it asks for more memory than there is", hint=hint) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ...")
        reason = reason or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it has no {reason}"
        raise ArtifactError(f"{path} cannot be read: {reason}", hint=hint) from error


def check_plain(document: Any, *, ignore: tuple[type, ...] = ()) -> None:
    """ValueError unless a document is a tree of texts and 64-bit numbers of moderate size and depth.

    What is shared counts as often as it would be printed: a few lists that hold each other would otherwise make a
    short file endless. ignore: types of leaves that are somebody else's to check.
    """
    nodes, todo = 0, [(document, 0)]
    while todo:
        value, depth = todo.pop()
        nodes += 1
        if depth > DEEPEST or nodes > MOST_NODES:
            raise ValueError("it is nested too deeply" if depth > DEEPEST else "it holds too many values")
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise ValueError("a table has keys that are no texts")
            todo += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple):
            todo += [(part, depth + 1) for part in value]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number has more than 64 bits")
        elif value is not None and not isinstance(value, (str, int, float, *DATES, *ignore)):
            raise ValueError(f"it holds a {type(value).__name__}, which is no plain value")


def read_json(path: Path, hint: str = "was it copied completely?") -> dict[str, Any]:
    """One JSON object; ArtifactError if the file is missing or holds anything else."""
    with reading(path, hint):
        return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> dict[str, Any]:
    """One JSON object of plain values; ValueError or RecursionError (see ``reading``) if the text is anything else."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__} instead of a table of names and values")
    check_plain(document)
    return document


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The tables of a file that has one in a line, one after the other: a large file is never in memory as a whole.

    Raises as ``parse_json`` at a line that is none.
    """
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield parse_json(line)


@contextmanager
def writing(path: Path, hint: str = ROOM, *, refusals: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """The other boundary: what the system says about a full disk or a forbidden folder becomes one RunError.

    refusals: exceptions that mean this.
    """
    try:
        yield
    except refusals as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"cannot write {path}: {reason}", hint=hint) from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write to a temporary file beside ``path``, then rename it; a full or read-only disk is a one-line RunError."""
    with writing(path, refusals=(OSError, RuntimeError)), ExitStack() as stack:  # torch.save raises the latter
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            stack.callback(temporary.unlink, missing_ok=True)  # where it has not become ``path``
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """``write_atomically`` of a text, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def to_json(document: Any, indent: int | None = 2) -> str:
    """Strict JSON; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
