"""Carry out replicas, in this process or in several, and keep each one at once."""

import concurrent.futures
import contextlib
import functools
import signal
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from attnprobe.calibration.checks import ASKED, CHECKS
from attnprobe.calibration.outcomes import Outcome
from attnprobe.calibration.planted import PLANTED, planted_name
from attnprobe.calibration.records import Key, Record, Records
from attnprobe.calibration.worlds import Cell, Replica, replica
from attnprobe.errors import NotApplicableError, RunError
from attnprobe.machine import end_with_parent
from attnprobe.probes.sequences import Progress

TOGETHER = 5  # replicas of a cell that one process carries out before they are kept


def keys(cells: Sequence[Cell], probes: Sequence[str], replicas: int, *, power: bool) -> list[Key]:
    """All that is to be measured, a few replicas of every cell at a time, so that a part of it is a small grid."""
    names = [cell.name for cell in cells]
    if power:
        names += [planted_name(effect, size) for effect, what in PLANTED.items() for size in what.sizes]
    return [
        (name, number, probe)
        for first in range(0, replicas, TOGETHER)
        for name in names
        for number in range(first, min(first + TOGETHER, replicas))
        for probe in probes
        if asks(name, probe)
    ]


def asks(cell: str, probe: str) -> bool:
    """Planted effects are for one probe each, and some probes for some cells."""
    effect = cell.split(" ")[0]
    if effect in PLANTED:
        return PLANTED[effect].probe == probe
    return probe not in ASKED or ASKED[probe](Cell.named(cell))


def run(
    wanted: Sequence[Key],
    records: Records,
    *,
    seed: int,
    jobs: int = 1,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> bool:
    """Measure what is not in ``records`` yet; False if ``stop`` was set before all was done.

    Raises RunError if a process was killed; what was finished is kept.
    """
    groups = _groups([key for key in wanted if key not in records.known])
    done = sum(key in records.known for key in wanted)
    finished = _inline(groups, seed) if jobs == 1 else _processes(groups, seed, jobs)
    with contextlib.closing(finished):
        for found in finished:
            records.add(found)
            done += len(found)
            if progress is not None:
                progress(done, len(wanted))
            if stop is not None and stop.is_set():
                break
    return done == len(wanted)


def _groups(missing: Sequence[Key]) -> list[list[Key]]:
    """Replicas of one cell that are measured one after the other."""
    groups: dict[tuple[str, int], list[Key]] = {}
    for key in missing:
        groups.setdefault((key[0], key[1] // TOGETHER), []).append(key)
    return list(groups.values())


def _inline(groups: Sequence[list[Key]], seed: int) -> Generator[list[Record], None, None]:
    for group in groups:
        yield measure(group, seed)


def _processes(groups: Sequence[list[Key]], seed: int, jobs: int) -> Generator[list[Record], None, None]:
    pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin)
    try:
        futures = [pool.submit(measure, group, seed) for group in groups]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        hint = "was there too little memory? What was finished is kept: the same command goes on"
        raise RunError("a process of the calibration was killed", hint=hint) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches all processes, but only the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)


def measure(group: Sequence[Key], seed: int) -> list[Record]:
    """The replicas of one group; the probes of one replica share its model and data."""
    records = []
    for cell, number, probe in group:
        start = time.process_time()
        outcomes = tuple(answers(cell, number, probe, seed))
        seconds = time.process_time() - start
        records.append(Record(cell=cell, replica=number, probe=probe, outcomes=outcomes, seconds=seconds))
    return records


def answers(cell: str, number: int, probe: str, seed: int) -> list[Outcome]:
    try:
        if cell.split(" ")[0] in PLANTED:
            effect, size = cell.split(" ")
            return PLANTED[effect].measure(number, float(size), seed)
        return CHECKS[probe](_world(cell, number, seed))
    except NotApplicableError as error:
        return [Outcome(quantity="all", kind="verdict", value=None, refused=str(error))]


@functools.lru_cache(maxsize=1)
def _world(cell: str, number: int, seed: int) -> Replica:
    return replica(Cell.named(cell), number, seed=seed)
