"""Copies of metrics.jsonl for programs that watch elsewhere. Light: what a log needs is imported when it is opened.

A log is brought up to date with all of metrics.jsonl when a run starts or goes on, and after every epoch. What it has
already it does not take again, so a run that was interrupted, and repeats some epochs, doubles no point.
"""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from attnprobe.errors import ConfigError
from attnprobe.files import parse_json, reading
from attnprobe.training.saved.run_directory import START_AGAIN, RunDirectory

Record = dict[str, Any]
LogName = Literal["csv", "tensorboard", "wandb"]
NEEDS: dict[str, str | None] = {"csv": None, "tensorboard": "tensorboard", "wandb": "wandb"}  # package, and extra
NOT_SCALARS = ("phase", "epoch", "step", "seconds", "time")


class Log(Protocol):
    def update(self, records: Sequence[Record]) -> None:
        """Take over what is new in the records of metrics.jsonl."""
        ...

    def close(self) -> None: ...


def check_logs(names: Sequence[str]) -> None:
    """ConfigError, with the command that mends it, if a package that one of them needs is not there."""
    for name in names:
        package = NEEDS[name]
        found = None if package is None else importlib.util.find_spec(package)
        if package is not None and (found is None or found.origin is None):  # a mere folder of that name has no origin
            message = f"--log {name} needs the package {package}, which is not installed"
            raise ConfigError(message, hint=f"pip install 'attnprobe[{package}]'")


@contextlib.contextmanager
def opened_logs(names: Sequence[LogName], directory: RunDirectory, settings: Record) -> Iterator[list[Log]]:
    """The logs of a run, up to date. settings: of the run, as tables."""
    check_logs(names)
    logs: list[Log] = []
    try:
        for name in dict.fromkeys(names):
            logs.append(open_log(name, directory, settings))
        update(logs, directory)
        yield logs
    finally:
        for log in logs:
            log.close()


def open_log(name: LogName, directory: RunDirectory, settings: Record) -> Log:
    if name == "csv":
        from attnprobe.training.logs.csv_file import CsvFile

        return CsvFile(directory)
    if name == "tensorboard":
        from attnprobe.training.logs.tensorboard_events import TensorboardEvents

        return TensorboardEvents(directory)
    from attnprobe.training.logs.wandb_offline import WandbOffline

    return WandbOffline(directory, settings)


def update(logs: Sequence[Log], directory: RunDirectory) -> None:
    if not logs or not directory.metrics.exists():
        return
    with reading(directory.metrics, START_AGAIN):
        records = [parse_json(line) for line in directory.metrics.read_text(encoding="utf-8").splitlines()]
    for log in logs:
        log.update(records)


def scalars(record: Record) -> dict[str, float]:
    """The metrics of an epoch, by name."""
    found = {name: value for name, value in record.items() if name not in NOT_SCALARS}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def step_of(record: Record) -> int:
    """Updates made in the phase; epochs, in what earlier versions wrote."""
    return record.get("step", record["epoch"])
