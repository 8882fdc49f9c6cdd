"""What the scheduling of a study costs: a sweep of jobs that do next to nothing, by every executor.

As a program, ``python -m tests.benchmarks.sweep [JOBS [EXECUTOR ...]]`` prints the page that RESULTS.md quotes.

A job writes a small result.json, as a run does. Every second job needs the one before it, as finetuning needs its
pretraining. Starting the executor and its workers, which is paid once, is timed apart: a first sweep of a few jobs.
"""

import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from attnprobe.bench.report import heading, surroundings, table
from attnprobe.files import to_json, write_text
from attnprobe.studies.executors import opened
from attnprobe.studies.job import Job
from attnprobe.studies.schedule import carry_out

EXECUTORS = ("serial", "processes", "ray")
WORKERS = 2
FIRST = 40  # jobs after which all workers have started

Row = dict[str, float | str]


def write_result(folder: Path, number: int) -> None:
    """All that a job does."""
    run = folder / f"{number:05}"
    run.mkdir()
    write_text(run / "result.json", to_json({"seed": number, "test_accuracy": 0.5}) + "\n")


def sweep(folder: Path, numbers: Sequence[int]) -> list[Job]:
    return [
        Job(
            key=str(number),
            name=f"run {number}",
            work=functools.partial(write_result, folder, number),
            needs=(str(number - 1),) if number % 2 else (),
        )
        for number in numbers
    ]


def measure(executor: str, count: int, folder: Path) -> Row:
    """Milliseconds per job of one sweep, from the first that starts until the last has ended."""
    folder.mkdir()
    began = time.perf_counter()
    with opened(executor, folder=folder, jobs=WORKERS) as working:
        first = carry_out(sweep(folder, range(FIRST)), working)
        ready, processor = time.perf_counter(), time.process_time()
        ended = carry_out(sweep(folder, range(FIRST, FIRST + count)), working)
        done, processor = time.perf_counter(), time.process_time() - processor
    for number in range(FIRST + count):
        assert (folder / f"{number:05}" / "result.json").exists()
    assert {*first.values(), *ended.values()} == {None}
    return {
        "executor": executor,
        "jobs": count,
        "ms per job": 1000 * (done - ready) / count,
        "ms of this process's processor": 1000 * processor / count,
        "start, s": ready - began,
        "end, s": time.perf_counter() - done,
    }


def bare(count: int, folder: Path) -> Row:
    """The same work without any scheduling."""
    folder.mkdir()
    began, processor = time.perf_counter(), time.process_time()
    for number in range(count):
        write_result(folder, number)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return {
        "executor": "none, a loop",
        "jobs": count,
        "ms per job": 1000 * seconds / count,
        "ms of this process's processor": 1000 * processor / count,
        "start, s": 0.0,
        "end, s": 0.0,
    }


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0]) if arguments else 10_000
    rows: list[Row] = []
    where = surroundings(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("none", *(arguments[1:] or EXECUTORS)):
            part = Path(folder) / name
            rows.append(bare(count, part) if name == "none" else measure(name, count, part))
            shutil.rmtree(part)
    command = " ".join(["python -m tests.benchmarks.sweep", *arguments])
    print(*heading(where, command), "", *table(rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
