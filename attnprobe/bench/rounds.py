"""Gate, warm up, then interleave: every round times each peer once, and ratios are taken within rounds."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from attnprobe.bench.entries import GATED
from attnprobe.bench.peers import Maker, Peer
from attnprobe.bench.problem import Problem
from attnprobe.errors import RunError

GATE_STEPS = 20
# Largest relative difference of a loss from ours. Up to 4e-7 was measured in float32, see tests/benchmarks/RESULTS.md.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One peer on one problem. Ratios above 1 mean that ours was faster; None in its own row."""

    name: str
    tokens_per_second: Spread
    milliseconds_per_step: Spread
    ratio: Spread | None  # seconds of this peer / seconds of ours in the same round
    cpu_ratio: Spread | None  # the same with CPU seconds, which hardly notice other programs
    loss_difference: float | None  # largest relative one in the gate; None = not comparable by construction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    problem: str
    precision: str
    rounds: int
    steps_per_round: int
    rows: tuple[Row, ...]
    failed: dict[str, str]  # peer -> why it is not in the table


def compare(
    problem: Problem,
    makers: Mapping[str, Maker],
    *,
    device: torch.device,
    precision: str,
    rounds: int,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Measure ``makers`` ("ours" among them) on one problem, each round about ``seconds`` long per peer."""
    peers, differences, failed = _gate(problem, makers, device, precision, say)
    first = peers["ours"]
    per_step = min(first.run(3)[0] / 3 for _ in range(4))  # a busy moment must not make all rounds short
    steps = max(3, round(seconds / per_step))
    for peer in peers.values():
        peer.run(3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    names = list(peers)
    for number in range(rounds):
        say(f"{problem.name}: round {number + 1} of {rounds}")
        for name in names[number % len(names) :] + names[: number % len(names)]:  # no one is always first
            times[name].append(peers[name].run(steps))
    rows = [_row(name, times, steps, problem, differences.get(name)) for name in names]
    return Outcome(
        problem=problem.name, precision=precision, rounds=rounds, steps_per_round=steps, rows=tuple(rows), failed=failed
    )


def _gate(
    problem: Problem,
    makers: Mapping[str, Maker],
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
) -> tuple[dict[str, Peer], dict[str, float], dict[str, str]]:
    """Start everyone; who begins with our weights must reproduce our losses, or its time (and ours) means nothing."""
    peers: dict[str, Peer] = {}
    differences: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            peer = make(problem, device, precision)
            peer.run(GATE_STEPS)
        except (RuntimeError, ImportError, TypeError, ValueError) as error:  # a library of another version, no compiler
            if name == "ours":
                raise
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        losses = torch.stack(peer.losses).double().cpu()
        if not bool(losses.isfinite().all()):
            failed[name] = "its loss is not finite"
            continue
        peers[name] = peer
        if name in GATED:
            ours = torch.stack(peers["ours"].losses).double().cpu()[:GATE_STEPS]
            differences[name] = float(((losses - ours) / ours).abs().max())
            if differences[name] > TOLERANCE[precision]:
                difference = f"{differences[name]:.1e}, allowed are {TOLERANCE[precision]:.0e}"
                raise GateError(f"the losses of ours and of {name} differ by {difference} on {problem.name}")
        say(f"{problem.name}: {name} is ready after {time.perf_counter() - start:.1f} s")
    return peers, differences, failed


class GateError(RunError):
    """Ours and the reference do not compute the same thing, so their times are void."""

    exit_code = 5


def _row(
    name: str, times: dict[str, list[tuple[float, float]]], steps: int, problem: Problem, difference: float | None
) -> Row:
    wall, cpu = ([pair[i] for pair in times[name]] for i in (0, 1))
    ours_wall, ours_cpu = ([pair[i] for pair in times["ours"]] for i in (0, 1))
    own = name == "ours"
    return Row(
        name=name,
        tokens_per_second=spread([problem.tokens * steps / t for t in wall]),
        milliseconds_per_step=spread([1000 * t / steps for t in wall]),
        ratio=None if own else spread([a / b for a, b in zip(wall, ours_wall, strict=True)]),
        cpu_ratio=None if own else spread([a / b for a, b in zip(cpu, ours_cpu, strict=True)]),
        loss_difference=difference,
    )


def spread(values: list[float]) -> Spread:
    return Spread(median=statistics.median(values), low=min(values), high=max(values))
