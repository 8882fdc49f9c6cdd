"""Work for executors to carry out; it leaves its results in a folder."""

import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attnprobe.errors import RunError
from attnprobe.launch.signals import stop_on_signal
from attnprobe.studies.job import Job
from attnprobe.training.loop import Interrupted

LONG = 300.0  # seconds after which what should have happened has not


def job(key: str, work: Callable[..., None], *arguments: object, needs: tuple[str, ...] = (), memory: int = 0) -> Job:
    return Job(key=key, name=f"job {key}", work=functools.partial(work, *arguments), needs=needs, memory=memory)


def record(folder: Path, name: str) -> None:
    """A line for each time it is done, and what it was done with."""
    with (folder / name).open("a") as file:
        line = {"process": os.getpid(), "threads": torch.get_num_threads(), "began": time.time()}
        file.write(json.dumps(line) + "\n")


def recorded(folder: Path, name: str) -> list[dict[str, float]]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_up(folder: Path, name: str, parts: tuple[str, ...]) -> None:
    """Needs the results of others."""
    total = sum(len(recorded(folder, part)) for part in parts)
    (folder / name).write_text(f"{total}\n")


def fail(message: str) -> None:
    raise RunError(message, hint="a hint")


def divide(by: int) -> None:
    print(1 // by)


def allocate() -> None:
    raise MemoryError("of 1 EiB")


def killed(folder: Path, name: str, times: int) -> None:
    """Kills its own process the first ``times``, as the system does that has no memory left."""
    record(folder, name)
    if len(recorded(folder, name)) <= times:
        os.kill(os.getpid(), signal.SIGKILL)


def wait_for(folder: Path, name: str, others: tuple[str, ...]) -> None:
    """Ends when there is a line of each of the others."""
    record(folder, name)
    wait_until(lambda: all(recorded(folder, other) for other in others))


def train(folder: Path, name: str) -> None:
    """Goes on until it is asked to stop; then it saves."""
    with stop_on_signal() as stop:
        record(folder, name)
        wait_until(stop.is_set)
        time.sleep(0.3)  # a save takes its time
        (folder / f"{name}.saved").touch()
        raise Interrupted


def sleep(folder: Path, name: str, seconds: float) -> None:
    record(folder, name)
    time.sleep(seconds)
    (folder / f"{name}.ended").write_text(str(time.time()))


def wait_until(happened: Callable[[], bool], seconds: float = LONG) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Another thread acts while this one waits."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert not errors, errors
