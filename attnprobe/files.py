"""Files: reading what may be damaged, writing so that nobody sees half of one, JSON that every reader understands."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attnprobe.errors import ArtifactError, AttnprobeError, RunError


@contextmanager
def reading(path: Path, hint: str = "") -> Iterator[None]:
    """The boundary around every parser: whatever it says about a damaged or foreign file becomes one ArtifactError.

    The original exception stays its cause, so ATTNPROBE_DEBUG=1 still shows where a parser stumbled.
    """
    try:
        yield
    except AttnprobeError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ArtifactError(f"{path} cannot be read: {reason}", hint=hint) from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write to a temporary file beside ``path``, then rename it; a full or read-only disk is a one-line RunError."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> RunError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return RunError(
        f"cannot write {path}: {reason}", hint="choose a folder that exists and can be written, or free some space"
    )


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
