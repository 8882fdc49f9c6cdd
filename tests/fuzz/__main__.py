"""Give damaged files to parsers: ``python -m tests.fuzz COUNT [GROUP]``, COUNT inputs in all.

Each parser works in a process of its own. Whatever leaves it but an error of ours with a hint, one line long, is a
traceback; ten seconds of silence are a hang; the end of the process is a crash. Prints a line of JSON per parser.
"""

import contextlib
import io
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path

from attnprobe.errors import AttnprobeError
from tests.fuzz.mutation import damaged
from tests.fuzz.parsers import PARSERS, Parser

PATIENCE = 10.0  # seconds
GIBIBYTE = 2**30
MEMORY = 4 * GIBIBYTE  # that a child may take beyond what it starts with


def attempt(parser: Parser, name: str, number: int) -> str | None:
    """What went wrong with one input; None if it was read or refused as it should be."""
    draw = random.Random(f"{name}/{number}")
    kinds = [lambda draw: damaged(parser.content(), draw), *parser.more()]
    content = draw.choice(kinds)(draw)
    path = Path(parser.file)
    path.write_bytes(content)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            parser.read(path)
    except AttnprobeError as error:
        return None if error.hint and str(error).isprintable() else f"no hint or no line: {str(error)[:200]!r}"
    except Exception as error:
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({place.filename.rpartition('/')[2]}:{place.lineno})"
    return None


def child(parser: Parser, name: str, numbers: range, pipe: int) -> None:
    parser.content()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    for number in numbers:
        os.write(pipe, f"at {number}\n".encode())
        wrong = attempt(parser, name, number)
        if wrong is not None:
            os.write(pipe, f"wrong {number} {wrong!a}\n".encode())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    os.write(pipe, f"grown {grown // 1024}\n".encode())


def watch(parser: Parser, name: str, count: int) -> dict[str, object]:
    """All inputs of one parser; a process that crashes or hangs is followed by one for the inputs after that."""
    found = {"parser": name, "inputs": count, "tracebacks": [], "hangs": [], "crashes": [], "grown_mib": 0}
    start = 0
    while start < count:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            with contextlib.suppress(BrokenPipeError):
                child(parser, name, range(start, count), writing)
            os._exit(0)
        os.close(writing)
        at, said = start, b""
        while True:
            if not select.select([reading], [], [], PATIENCE)[0]:
                os.kill(process, signal.SIGKILL)
                found["hangs"].append(at)
                break
            part = os.read(reading, 1 << 16)
            if not part:
                break
            *lines, said = (said + part).split(b"\n")
            for line in lines:
                kind, _, rest = line.decode().partition(" ")
                if kind == "at":
                    at = int(rest)
                elif kind == "wrong":
                    found["tracebacks"].append(rest)
                else:
                    found["grown_mib"] = max(found["grown_mib"], int(rest))
        os.close(reading)
        _, status = os.waitpid(process, 0)
        if status and at not in found["hangs"]:
            found["crashes"].append(f"{at}: status {status}")
        start = at + 1
    return found


def main(count: int, group: str | None = None) -> None:
    import torch

    torch.set_num_threads(1)
    chosen = {name: parser for name, parser in PARSERS.items() if group in (None, parser.group)}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["ATTNPROBE_DATA"] = folder
        for name, parser in chosen.items():
            Path(folder, name).mkdir()
            os.chdir(Path(folder, name))
            print(json.dumps(watch(parser, name, -(-count // len(chosen)))), flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
