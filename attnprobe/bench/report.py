"""A benchmark's record: hardware, versions, numbers with their spread; as JSON and as a Markdown page."""

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attnprobe import __version__
from attnprobe.bench.fresh import Fresh
from attnprobe.bench.rounds import Outcome, Spread
from attnprobe.machine import installed_version, now, processor_name

PACKAGES = ("torch", "numpy", "transformers", "accelerate", "x-transformers", "lightning")


def surroundings(device: torch.device) -> dict[str, Any]:
    """Where and with what it was measured."""
    versions = {"attnprobe": __version__} | {name: v for name in PACKAGES if (v := installed_version(name)) is not None}
    if device.type == "cuda":
        versions |= {"CUDA": torch.version.cuda or "", "cuDNN": str(torch.backends.cudnn.version())}
    return {
        "date": now(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def document(
    where: dict[str, Any], command: str, outcomes: list[Outcome], fresh: dict[str, dict[str, Fresh]]
) -> dict[str, Any]:
    """Everything as plain data; fresh: problem -> peer -> its numbers."""
    return {
        "command": command,
        "surroundings": where,
        "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes],
        "fresh": {p: {n: dataclasses.asdict(f) for n, f in rows.items()} for p, rows in fresh.items()},
    }


def heading(where: dict[str, Any], command: str) -> list[str]:
    """What was called, when, where and with which versions."""
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    load = " ".join(map(str, where["load_average"]))
    return [
        f"`{command}`, {where['date']}",
        "",
        f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads, device {where['device']}, "
        f"load average at the start {load}; {where['platform']}, Python {where['python']}; {versions}.",
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines; the first row's keys are the titles, and what a row lacks stays empty."""
    titles = list(rows[0])
    cells = [titles, ["---"] * len(titles), *([_cell(row.get(title, "")) for title in titles] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def _cell(value: Any) -> str:
    if isinstance(value, Spread):
        median, low, high = (f"{x:,.0f}" if value.median >= 1000 else f"{x:.3g}" for x in dataclasses.astuple(value))
        return f"{median} ({low}-{high})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(where: dict[str, Any], command: str, outcomes: list[Outcome], fresh: dict[str, dict[str, Fresh]]) -> str:
    lines = [
        *heading(where, command),
        "",
        "Ratio: time of this peer / time of ours in the same round, above 1 = ours is faster; median (min-max). "
        "CPU ratio: the same with CPU seconds.",
    ]
    for outcome in outcomes:
        size = f"{outcome.rounds} rounds of {outcome.steps_per_round} steps"
        lines += ["", f"**{outcome.problem}**, {outcome.precision}, {size}", ""]
        lines += _table(outcome, fresh.get(outcome.problem, {}))
    return "\n".join(lines) + "\n"


def _table(outcome: Outcome, fresh: dict[str, Fresh]) -> list[str]:
    titles = ["peer", "tokens/s", "ms/step", "ratio", "CPU ratio", "loss differs by"]
    titles += ["first step, s", "peak MB"] if fresh else []
    rows = []
    for row in outcome.rows:
        difference = "" if row.loss_difference is None else f"{row.loss_difference:.0e}"
        cells = [row.name, f"{row.tokens_per_second.median:,.0f}", f"{row.milliseconds_per_step.median:.1f}"]
        cells += [_spread(row.ratio), _spread(row.cpu_ratio), difference]
        if fresh:
            own = fresh.get(row.name)
            cells += ["", ""] if own is None else [f"{own.first_step_seconds:.1f}", f"{own.peak_megabytes:.0f}"]
        rows.append(cells)
    lines = [f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows]]
    return lines + [f"\nNot measured: {name} ({reason})." for name, reason in outcome.failed.items()]


def _spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"
