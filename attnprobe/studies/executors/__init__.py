"""Who carries out the jobs of a study: this process, processes beside it, a Ray cluster, a SLURM queue."""

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attnprobe.config import SEE, build, did_you_mean, override
from attnprobe.errors import ConfigError, shown
from attnprobe.studies.executors.executor import Executor
from attnprobe.studies.executors.processes import Processes
from attnprobe.studies.executors.ray import Ray
from attnprobe.studies.executors.serial import Serial
from attnprobe.studies.executors.slurm import Slurm

EXECUTORS: dict[str, type[Any]] = {"serial": Serial, "processes": Processes, "ray": Ray, "slurm": Slurm}


def opened(
    name: str, *, folder: Path, jobs: int | None = None, options: Iterable[str] = ()
) -> AbstractContextManager[Executor]:
    """An executor of EXECUTORS, ready while the context lasts.

    folder: where it may leave what it needs, if anything; jobs: at most so many at a time; options: "key=value", the
    fields of its class. ConfigError if there is no such executor or option, or if an extra is not installed.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"unknown executor {shown(name)}", hint=did_you_mean(name, EXECUTORS))
    try:
        table = ({} if jobs is None else {"jobs": jobs}) | override({}, options)
        return build(EXECUTORS[name], table, "executor").open(folder)
    except ConfigError as error:  # hints that speak of a run's settings would lead nowhere
        known = ", ".join(field.name for field in dataclasses.fields(EXECUTORS[name]))
        elsewhere = SEE in error.hint or "-s " in error.hint
        hint = f"write -x KEY=VALUE; {name} knows {known}" if elsewhere else error.hint
        raise ConfigError(str(error), hint=hint) from None
