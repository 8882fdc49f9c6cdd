"""Several runs side by side on the CPU, in processes."""

import threading
from collections.abc import Sequence
from typing import Any

from attnprobe.errors import RunError
from attnprobe.launch.workers import LostError, Work, Workers
from attnprobe.training.loop import Interrupted

SECONDS_BETWEEN_LOOKS = 0.2

Result = dict[str, Any]


def in_processes(
    works: Sequence[Work], names: Sequence[str], *, workers: int, threads: int, stop: threading.Event
) -> list[Result]:
    """The results in order; at most ``workers`` at a time, each with so many ``threads``.

    works: can be pickled; names: what errors call them. When ``stop`` is set or one of them fails, the others are asked
    to save and to end, and then the error is raised: Interrupted, RunError for a process that was killed, or its own.
    """
    waiting = list(range(len(works)))
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    with Workers(workers, threads=threads) as pool:
        while True:
            if errors or stop.is_set():
                waiting.clear()
                pool.ask_to_stop()
            while waiting and len(pool.busy) < workers:
                number = waiting.pop(0)
                pool.start(number, works[number], names[number])
            if not pool.busy:
                break
            for number, outcome in pool.wait(SECONDS_BETWEEN_LOOKS).items():
                if isinstance(outcome, Exception):
                    errors.append(outcome)
                else:
                    results[number] = outcome
    if errors or len(results) < len(works):
        raise _to_raise(errors)
    return [results[number] for number in range(len(works))]


def _to_raise(errors: Sequence[Exception]) -> Exception:
    first = next((error for error in errors if not isinstance(error, Interrupted)), Interrupted())
    if isinstance(first, LostError):
        return RunError(
            str(first), hint=f"{first.hint} The others have saved; go on with the same command and --resume"
        )
    return first
