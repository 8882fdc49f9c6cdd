"""The GPU suite: attention backends, engines, epoch times, ensembles, and whether a graph computes the same.

Written for one GPU and eight minutes. Parts are skipped, and said to be, when the time is over.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.bench.contestants import Ours, timed
from attnprobe.bench.problem import Problem
from attnprobe.bench.report import heading, surroundings, table
from attnprobe.run import Engine
from attnprobe.training.loop import Update
from attnprobe.training.together import Ensemble

LONGEST = 480.0  # seconds for the whole suite
STEPS = 200  # behind every extrapolated epoch
Rows = list[dict[str, Any]]

IMAGE = Problem(length=1024, batch=32, layers=3)
SHORT = Problem(length=256, batch=32)
PATHFINDER = Problem(length=1024, batch=32, d_model=128, layers=4, d_mlp=512)
LISTOPS = Problem(length=2048, batch=64, d_model=512, layers=6, heads=8, d_mlp=1024)  # padded; values, not tokens
EPOCHS = {"image": (IMAGE, 1406), "pathfinder": (PATHFINDER, 5000), "listops, padded": (LISTOPS, 1500)}  # steps of one
ATTENTION = ((128, 1024, 16), (256, 1024, 16), (128, 1024, 32), (512, 2048, 64))  # (batch * heads, length, d_head)
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def run_gpu_suite(command: str, *, device: torch.device, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """The record as plain data and as a Markdown page."""
    where, start = surroundings(device), time.perf_counter()
    parts: dict[str, Callable[[torch.device], Rows]] = {
        "graph equals eager": check_graph,
        "attention backends": attention_backends,
        "engines": engine_ladder,
        "epochs": epochs,
        "ensembles": ensembles,
    }
    tables: dict[str, Rows] = {}
    for name, measure in parts.items():
        if time.perf_counter() - start > LONGEST:
            tables[name] = [{"skipped": "the time was over"}]
            continue
        say(name)
        tables[name] = measure(device)
    return {"command": command, "surroundings": where, "tables": tables}, _markdown(where, command, tables)


def check_graph(device: torch.device) -> Rows:
    return [{"largest difference of a parameter after 20 steps": attempt(lambda: graph_difference(device))}]


def graph_difference(device: torch.device, steps: int = 20) -> float:
    """Largest difference of any parameter between eager and graph training."""
    problem = dataclasses.replace(SHORT, batches=4)
    runs = [Ours(problem, device, Engine(mode=mode)) for mode in ("eager", "graph")]
    for run in runs:
        run.run(steps)
    pairs = zip(*(run.model.parameters() for run in runs), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def attention_backends(device: torch.device) -> Rows:
    """Milliseconds of forward and backward in bfloat16."""
    rows: Rows = []
    for sequences, length, width in ATTENTION:
        shape = (1, sequences, length, width)
        q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        row: dict[str, Any] = {"batch x heads": sequences, "length": length, "d_head": width}
        for name, backend in BACKENDS.items():

            def once(q=q, k=k, v=v, backend=backend) -> None:
                with sdpa_kernel(backend):
                    F.scaled_dot_product_attention(q, k, v).sum().backward()

            row[name] = attempt(lambda once=once: _milliseconds(once, device))
        rows.append(row)
    return rows


def engine_ladder(device: torch.device) -> Rows:
    """Milliseconds per step, from the plain path upwards."""
    engines = {"eager float32": Engine()} | {
        f"{mode} bfloat16": Engine(mode=mode, precision="bfloat16") for mode in ("eager", "compiled", "graph")
    }
    rows: Rows = []
    for problem in (IMAGE, dataclasses.replace(IMAGE, batch=16), SHORT):
        row: dict[str, Any] = {"problem": problem.name}
        for name, engine in engines.items():
            row[name] = attempt(lambda engine=engine, problem=problem: _step(problem, device, engine, 50))
        rows.append(row)
    return rows


def epochs(device: torch.device) -> Rows:
    """Seconds per pretraining epoch, extrapolated from ``STEPS`` measured steps of the eager engine."""
    rows: Rows = []
    for name, (problem, steps) in EPOCHS.items():
        step = attempt(lambda problem=problem: _step(problem, device, Engine(precision="bfloat16"), STEPS))
        seconds = step * steps / 1000 if isinstance(step, float) else step
        rows.append({"task": name, "ms/step": step, "measured steps": STEPS, "seconds per epoch": seconds})
    return rows


def ensembles(device: torch.device) -> Rows:
    """Milliseconds per step of all members together, against as many steps of one."""
    rows: Rows = []
    for problem in (SHORT, IMAGE):
        alone = _step(problem, device, Engine(), 50)
        for members in (1, 2, 4, 8, 16):
            together = attempt(lambda members=members, problem=problem: _ensemble_step(problem, device, members))
            gain = alone * members / together if isinstance(together, float) else together
            rows.append({"problem": problem.name, "members": members, "ms/step": together, "times faster": gain})
    return rows


def _ensemble_step(problem: Problem, device: torch.device, members: int) -> float:
    trainers = [dataclasses.replace(problem, seed=m).trainer(device, Engine()) for m in range(members)]
    ensemble = Ensemble(trainers)
    updates = [Update(trainer=t, batch=t.batches(0)[0], epoch=0) for t in trainers]

    def once() -> None:
        ensemble.update(updates)

    return _milliseconds(once, device)


def _step(problem: Problem, device: torch.device, engine: Engine, steps: int) -> float:
    ours = Ours(problem, device, engine)
    ours.run(10)
    return 1000 * ours.run(steps)[0] / steps


def _milliseconds(once: Callable[[], None], device: torch.device, repeats: int = 20) -> float:
    for _ in range(3):
        once()

    def all_of_them() -> None:
        for _ in range(repeats):
            once()

    return 1000 * timed(all_of_them, device)[0] / repeats


def attempt(measure: Callable[[], float]) -> float | str:
    """A number, or why there is none: one failing cell must not cost the table."""
    try:
        return measure()
    except RuntimeError as error:  # out of memory, a backend that refuses, a capture that fails
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"


def _markdown(where: dict[str, Any], command: str, tables: dict[str, Rows]) -> str:
    lines = heading(where, command)
    for name, rows in tables.items():
        lines += ["", f"**{name}**", "", *table(rows)]
    return "\n".join(lines) + "\n"
