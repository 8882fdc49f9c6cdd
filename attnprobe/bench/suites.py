"""Which problems are measured, how often, and how long."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from attnprobe.bench.entries import installed
from attnprobe.bench.fresh import Fresh, measure
from attnprobe.bench.problem import Problem
from attnprobe.bench.report import document, markdown, surroundings
from attnprobe.bench.rounds import Outcome, compare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    problems: tuple[Problem, ...]
    rounds: int
    seconds: float  # per peer and round
    fresh: bool  # also start every peer in a process of its own
    without: tuple[str, ...] = ()  # peers left out


SIZES = (Problem(length=100, batch=50, layers=1), Problem(length=256, batch=16), Problem(length=1024, batch=4))

SUITES: dict[str, Suite] = {
    "quick": Suite(
        problems=(Problem(length=64, batch=16, layers=1, d_model=32),), rounds=3, seconds=0.2, fresh=False,
        without=("the same, torch.compile",),
    ),
    "cpu": Suite(
        problems=(*SIZES, dataclasses.replace(SIZES[1], loss="label")), rounds=9, seconds=1.0, fresh=True
    ),
}  # fmt: skip


def run_suite(
    suite: Suite, command: str, *, device: torch.device, precision: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """The record as plain data and as a Markdown page."""
    where = surroundings(device)
    makers = {name: make for name, make in installed().items() if name not in suite.without}
    outcomes: list[Outcome] = []
    fresh: dict[str, dict[str, Fresh]] = {}
    for problem in suite.problems:
        outcome = compare(
            problem, makers, device=device, precision=precision, rounds=suite.rounds, seconds=suite.seconds, say=say
        )
        outcomes.append(outcome)
    if suite.fresh:
        problem, outcome = suite.problems[0], outcomes[0]
        fresh[problem.name] = {}
        for row in outcome.rows:
            if row.name != "ours again":
                say(f"{problem.name}: {row.name} in a process of its own")
                fresh[problem.name][row.name] = measure(row.name, problem, device, precision)
    return document(where, command, outcomes, fresh), markdown(where, command, outcomes, fresh)
