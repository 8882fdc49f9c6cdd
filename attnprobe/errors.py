"""What can go wrong for a user: one line each, with the exit code the command line returns for it."""

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2000  # characters of a message; paths may have many
MEMORY_WORDS = ("out of memory", "allocate memory", "size calculation overflowed", "multiplication overflow")

_shorten = reprlib.Repr()
_shorten.maxlevel, _shorten.maxdict, _shorten.maxlist, _shorten.maxtuple = 2, 3, 4, 4
_shorten.maxstring, _shorten.maxother, _shorten.maxlong = 80, 80, 40


class AttnprobeError(Exception):
    """Base of all errors that are the user's to mend. The message is one line; ``hint`` says what to do."""

    exit_code = 1
    usual_hint = ""  # where nothing better is known

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(one_line(message))
        self.hint = one_line(hint or self.usual_hint)


class ConfigError(AttnprobeError, ValueError):
    """A setting is unknown, of the wrong type, or impossible."""

    exit_code = 2


class RunError(AttnprobeError):
    """A run could not be carried out: no such device, a full disk, a loss that is not a number."""

    exit_code = 1


class ArtifactError(AttnprobeError):
    """A file (data, checkpoint, run directory) is missing, damaged, of another version, or not what it should be."""

    exit_code = 3
    usual_hint = "is it the file that was meant, and was it copied or downloaded completely?"


class NotApplicableError(AttnprobeError):
    """A probe has no meaning for this model or this data."""

    exit_code = 4


@contextmanager
def about(what: str) -> Iterator[None]:
    """Of several things, errors say which one they are about, unless they do anyway."""
    try:
        yield
    except AttnprobeError as error:
        if what in str(error):
            raise
        raise type(error)(f"{what}: {error}", hint=error.hint) from error


def one_line(text: str) -> str:
    """What stands in a path or a file is shown, never obeyed: line ends and control characters become escapes."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value for a message: ``repr`` that stays short, however long, deep or entangled the value is."""
    return _shorten.repr(value)


def explain(error: Exception) -> AttnprobeError:
    """What the command line says about any exception: the user's mistakes, lack of memory, the system, or a defect."""
    if isinstance(error, AttnprobeError):
        return error
    text = (str(error).splitlines() or [""])[0]
    if lacks_memory(error):
        asked = re.search(r"allocate ([\d.]+ \w+)", text)
        message = (
            f"not enough memory: {asked[1]} were asked for" if asked else f"not enough memory: {text}".rstrip(": ")
        )
        return RunError(message, hint="choose a smaller size: of the model, the batches, or the data")
    if isinstance(error, OSError) or "Symlink loop" in text:
        return RunError(f"the system refused: {error}", hint="is the disk full, the output closed, or a path wrong?")
    message = f"internal error: {type(error).__name__}: {text}".rstrip(": ")
    return RunError(message, hint="this is a defect of attnprobe; ATTNPROBE_DEBUG=1 shows where it happened")


def lacks_memory(error: Exception) -> bool:
    told = isinstance(error, RuntimeError) and any(words in str(error).partition("\n")[0] for words in MEMORY_WORDS)
    return told or isinstance(error, MemoryError)
