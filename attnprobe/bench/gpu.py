"""The GPU suite within its time: rows are measured in a process of their own, which a failing row cannot survive.

A capture that fails, or a kernel that reads where it must not, can leave a CUDA context in which nothing works; the
rows after it get a fresh process. Whatever happens, the rows that were measured are kept. The suite has not been run on
a GPU yet; it is written for one, and for less than ``BUDGET`` seconds.
"""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import torch

from attnprobe.bench.gpu_rows import PARTS, Failure, Plan, Row
from attnprobe.bench.report import heading, surroundings, table

BUDGET = 300.0  # seconds of the whole suite
ROW = 75.0  # of one row
START = 45.0  # of a process before its first row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds."""

    row: float = ROW
    start: float = START


def run_gpu_suite(
    command: str,
    *,
    device: torch.device,
    say: Callable[[str], None],
    plan: Plan | None = None,
) -> tuple[dict[str, Any], str]:
    """The record as plain data and as a Markdown page; "stopped" says whether it was interrupted."""
    where, deadline = surroundings(device), time.perf_counter() + BUDGET
    tables: dict[str, list[Row]] = {name: [] for name in PARTS}
    stopped = False
    try:
        with _terminated_as_interrupted():
            for name, rows in tables.items():
                for row in part_rows(name, plan or Plan(), device, Limits(), deadline):
                    rows.append(row)
                    say(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()))
    except KeyboardInterrupt:
        stopped = True
        for rows in tables.values():
            if not rows:
                rows.append({"not measured": "stopped"})
    lines = heading(where, command)
    for name, rows in tables.items():
        lines += ["", f"**{name}**", "", *table(rows)]
    if stopped:
        lines += ["", "Stopped before the end."]
    document = {"command": command, "surroundings": where, "tables": tables, "stopped": stopped}
    return document, "\n".join(lines) + "\n"


def part_rows(name: str, plan: Plan, device: torch.device, limits: Limits, deadline: float) -> Iterator[Row]:
    """The rows of a part; one that says why stands in the place of each that could not be measured in time."""
    number, count, column = 0, 1, "not measured"
    while number < count:
        if time.perf_counter() >= deadline:
            yield {column: "left out: the time was over"}
            return
        with _worker(name, plan, device, number) as worker:
            limit = limits.start
            while number < count:
                limit = min(limit, deadline - time.perf_counter())
                answer = worker.next(limit)
                if isinstance(answer, int):
                    count, limit = answer, limits.row
                    continue
                number += 1
                limit = limits.row
                if isinstance(answer, str):
                    yield {column: answer}
                    break
                column = next(iter(answer))
                yield answer
                if any(isinstance(value, Failure) for value in answer.values()):
                    break


class Worker:
    """A process that measures the rows of a part from a given one on."""

    def __init__(self, process: Any, answers: Any) -> None:
        self.process, self.answers = process, answers

    def next(self, seconds: float) -> int | Row | str:
        """The number of rows (first), a row, or why there is none."""
        try:
            if self.answers.poll(max(0.0, seconds)):
                return self.answers.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return f"the process died (exit code {self.process.exitcode})"
        return f"took longer than {seconds:.0f} s"


@contextlib.contextmanager
def _worker(name: str, plan: Plan, device: torch.device, first: int) -> Iterator[Worker]:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure_rows, args=(theirs, name, plan, str(device), first), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Worker(process, ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def measure_rows(answers: Connection, name: str, plan: Plan, device: str, first: int) -> None:
    """In a process of its own: send the number of rows, then every row from ``first`` on, or what is wrong with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all processes; the first one decides
    rows = PARTS[name](plan, torch.device(device))
    answers.send(len(rows))
    for row in rows[first:]:
        try:
            answers.send(row())
        except Exception as error:  # whatever it is, it is what the table has to say
            answers.send(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}")
            return


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Within it, SIGTERM is what Ctrl-C is, so that a time limit from outside does not cost the tables."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
