"""Carry out runs: one after the other, side by side, as one ensemble, or one run shared by torchrun's processes."""

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from attnprobe.errors import ConfigError
from attnprobe.launch.processes import in_processes
from attnprobe.launch.signals import stop_on_signal
from attnprobe.machine import choose_device, cores
from attnprobe.run import RunConfig
from attnprobe.training import distributed
from attnprobe.training.ensembles.ensemble import check_alike, together
from attnprobe.training.ensembles.group_saves import GroupSaves
from attnprobe.training.execute import updates
from attnprobe.training.execution import Execution, Watch
from attnprobe.training.loop import alone
from attnprobe.training.monitor import Monitor
from attnprobe.training.saved.claim import check_claim
from attnprobe.training.saved.replacing import set_aside_together
from attnprobe.training.saved.run_directory import RunDirectory
from attnprobe.training.updates.allocator import keep_freed_memory

Result = dict[str, Any]
Run = tuple[RunConfig, Path, Watch | None]  # what is run, its folder, what looks on


class MakeMonitor(Protocol):
    """Makes what hears of a run's progress; must travel to other processes."""

    def __call__(self, *, quiet: bool, live: bool = True, prefix: str = "") -> AbstractContextManager[Monitor]: ...


def launch(
    runs: Sequence[Run],
    *,
    device: str,
    make_monitor: MakeMonitor,
    say: Callable[[str], None],
    quiet: bool,
    names: Sequence[str] | None = None,
    as_ensemble: bool = False,
    **options: Any,
) -> list[Result]:
    """The content of every result.json; Interrupted if a first SIGINT or SIGTERM stopped the runs, which have saved.

    names: what runs side by side are called in lines of progress, their seeds by default.
    options: data_dir, resume, overwrite and log, as of ``Execution``. All folders are checked before anything is begun.
    Under torchrun all processes but the first return nothing.
    """
    keep_freed_memory()
    shared = distributed.started_by_torchrun()
    if shared and len(runs) > 1:
        raise ConfigError("torchrun trains one run at a time", hint="leave out --seeds, or leave out torchrun")
    chosen = choose_device(distributed.local_device(device) if shared else device)
    claim = {key: options.get(key, False) for key in ("resume", "overwrite")}
    for config, folder, _ in runs if distributed.rank() == 0 else ():
        check_claim(RunDirectory(folder), config, **claim)
    carry_out = functools.partial(run_alone, device=chosen, make_monitor=make_monitor, quiet=quiet, **options)
    several = [folder for _, folder, _ in runs] if claim["overwrite"] and len(runs) > 1 else []
    with set_aside_together(several), stop_on_signal(second_ends=not shared) as stop:  # torchrun repeats signals
        if shared:
            return run_shared(runs[0], carry_out, chosen, stop, quiet=quiet)
        if as_ensemble and len(runs) > 1:
            say(f"{len(runs)} runs in step; the progress of the first one is shown")
            return run_together(runs, chosen, stop, make_monitor, quiet=quiet, **options)
        workers = min(len(runs), cores())
        if chosen.type == "cpu" and workers > 1:
            say(f"{len(runs)} runs, {workers} at a time")
            names = names or [f"seed {config.seed}" for config, _, _ in runs]
            works = [
                functools.partial(_until_signal, functools.partial(carry_out, run, live=False, prefix=f"{name} "))
                for run, name in zip(runs, names, strict=True)
            ]
            return in_processes(works, names, workers=workers, threads=max(1, cores() // workers), stop=stop)
        return [carry_out(run, stop.is_set) for run in runs]


def run_alone(
    run: Run,
    should_stop: Callable[[], bool],
    *,
    device: torch.device,
    make_monitor: MakeMonitor,
    quiet: bool,
    live: bool = True,
    prefix: str = "",
    **options: Any,
) -> Result:
    with make_monitor(quiet=quiet, live=live, prefix=prefix) as monitor:
        return alone(updates(_execution(run, monitor, device=device, should_stop=should_stop, **options)))


def _until_signal(carry_out: Callable[[Callable[[], bool]], Result]) -> Result:
    with stop_on_signal() as stop:
        return carry_out(stop.is_set)


def run_together(
    runs: Sequence[Run],
    device: torch.device,
    stop: threading.Event,
    make_monitor: MakeMonitor,
    *,
    quiet: bool,
    **options: Any,
) -> list[Result]:
    """All runs as one ensemble; they go in step, so the first one's progress is everybody's."""
    check_alike([config for config, _, _ in runs])
    common = {"device": device, "should_stop": stop.is_set, "datasets": {}, **options}
    with make_monitor(quiet=quiet) as shown, make_monitor(quiet=True) as silent:
        executions = [_execution(run, silent if n else shown, **common) for n, run in enumerate(runs)]
        return together([updates(e) for e in executions], GroupSaves(executions))


def _execution(run: Run, monitor: Monitor, **fields: Any) -> Execution:
    config, folder, watch = run
    return Execution(config=config, directory=RunDirectory(folder), watch=watch, monitor=monitor, **fields)


def run_shared(
    run: Run, carry_out: Callable[..., Result], device: torch.device, stop: threading.Event, *, quiet: bool
) -> list[Result]:
    """One run on all processes of torchrun; only the first one speaks, writes and returns a result."""
    config, folder, watch = run
    with distributed.join(device) as rank, distributed.own_folder(rank, folder) as own:
        helper = rank > 0
        silent: dict[str, Any] = {"quiet": True, "log": ()} if helper else {"quiet": quiet}
        result = carry_out((config, own, None if helper else watch), stop.is_set, **silent)
    return [] if helper else [result]
