"""The GPU suite: attention kernels, graph against eager, epoch times, ensembles, paddings, and the ladder of engines.

Written for one GPU and eight minutes; it has not been run on one yet. Rows are left out, and said to be, when the time
is over; the parts that compile come last. A cell that fails holds its reason.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from attnprobe.bench.contestants import Ours, timed
from attnprobe.bench.lengths import Lengths, run_lengths
from attnprobe.bench.problem import Problem
from attnprobe.bench.report import heading, surroundings, table
from attnprobe.errors import RunError
from attnprobe.models import TransformerConfig
from attnprobe.run import Engine
from attnprobe.tasks.listops.task import ListOps
from attnprobe.training.attention_kernels import KERNELS, Shape, choose_attention, milliseconds
from attnprobe.training.ensemble import Ensemble
from attnprobe.training.loop import Update
from attnprobe.training.steppers import Mode

LONGEST = 420.0  # seconds after which no row is begun; the longest row takes about a minute
STEPS = 200  # behind every extrapolated epoch
Row = dict[str, Any]

IMAGE = Problem(length=1024, batch=32, layers=3)
SHORT = Problem(length=256, batch=32)
PATHFINDER = Problem(length=1024, batch=32, d_model=128, layers=4, d_mlp=512)
LISTOPS = Problem(length=2048, batch=64, d_model=512, layers=6, heads=8, d_mlp=1024)  # padded; values, not tokens
EPOCHS = {"image": (IMAGE, 1406), "pathfinder": (PATHFINDER, 5000), "listops, padded": (LISTOPS, 1500)}  # steps of one
LADDER_PROBLEMS = (IMAGE, dataclasses.replace(IMAGE, batch=16), SHORT)
LADDER: tuple[Mode, ...] = ("eager", "graph", "compiled")
MEMBERS = (1, 2, 4, 8, 16)
SHAPES = tuple(
    Shape(sequences=b, heads=h, length=n, d_head=d, precision="bfloat16", masked=masked, causal=False)
    for b, h, n, d, masked in (
        (32, 4, 1024, 16, False), (32, 8, 1024, 16, False), (32, 4, 1024, 32, False), (64, 8, 2048, 64, False),
        (64, 8, 2048, 64, True),
    )
)  # fmt: skip
PADDING = Lengths(  # the model and the batches of ListOps, at its own lengths
    task=ListOps(n_train=64 * 8 * 26, n_validation=1, n_test=1),
    model=TransformerConfig(d_model=512, layers=6, heads=8, d_mlp=1024),
    batch=64,
    steps=8,
    rounds=25,
)
LISTOPS_SAMPLES = 96_000  # of an epoch


def run_gpu_suite(command: str, *, device: torch.device, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """The record as plain data and as a Markdown page."""
    where, deadline = surroundings(device), time.perf_counter() + LONGEST
    parts: dict[str, Callable[[torch.device], Iterator[Row]]] = {
        "attention kernels, ms forward and backward": attention_kernels,
        "graph against eager": check_graph,
        "epochs": epochs,
        "ensembles": ensembles,
        "listops at its own lengths": paddings,
        "engines, ms/step": engine_ladder,
    }
    tables: dict[str, list[Row]] = {}
    for name, measure in parts.items():
        say(name)
        tables[name] = within(measure(device), deadline)
    lines = heading(where, command)
    for name, rows in tables.items():
        lines += ["", f"**{name}**", "", *table(rows)]
    return {"command": command, "surroundings": where, "tables": tables}, "\n".join(lines) + "\n"


def within(rows: Iterator[Row], deadline: float) -> list[Row]:
    """As many rows as can be begun in time; a last one says if some are missing, or what ended them."""
    found: list[Row] = []

    def end(why: str) -> list[Row]:
        return [*found, {next(iter(found[0])) if found else "not measured": why}]

    while time.perf_counter() < deadline:
        try:
            row = next(rows, None)
        except (RuntimeError, RunError) as error:
            return end(reason(error))
        if row is None:
            return found
        found.append(row)
    return end("left out: the time was over")


def attention_kernels(device: torch.device) -> Iterator[Row]:
    for shape in SHAPES:
        row: Row = {"batch x heads": shape.sequences * shape.heads, "length": shape.length, "d_head": shape.d_head}
        row["mask"] = "yes" if shape.masked else "no"
        for kernel in KERNELS:
            row[kernel] = milliseconds(kernel, shape, device) or "refused"
        yield row | {"chosen": choose_attention(Engine(), shape, device).kernel}


def check_graph(device: torch.device) -> Iterator[Row]:
    """Each against an eager run with the same attention kernel; "eager again" is the noise of kernels that add up in
    any order. "math" has none of those.
    """
    for kernel in ("math", "auto"):
        for mode in ("eager", "graph"):
            row: Row = {"kernel": kernel, "run": "eager again" if mode == "eager" else mode}
            try:
                losses, parameters = differences(device, Engine(attention=kernel), mode)
            except RuntimeError as error:
                losses, parameters = reason(error), ""
            yield row | {"losses differ by": losses, "parameters differ by": parameters}


def differences(device: torch.device, engine: Engine, mode: Mode, steps: int = 20) -> tuple[float, float]:
    """Largest relative difference of a loss and largest difference of a parameter from an eager run.

    Key biases are left out: softmax does not see them, so their gradient is rounding, which AdamW makes a full step.
    """
    problem = dataclasses.replace(SHORT, batches=4)
    eager, other = start(problem, device, engine), start(problem, device, dataclasses.replace(engine, mode=mode))
    for run in (eager, other):
        run.run(steps)
    ours, theirs = (torch.stack(run.losses).double() for run in (eager, other))
    pairs = zip(eager.model.named_parameters(), other.model.parameters(), strict=True)
    apart = [float((a - b).detach().abs().max()) for (name, a), b in pairs if not name.endswith("attention.k.bias")]
    return float(((ours - theirs) / ours).abs().max()), max(apart)


def epochs(device: torch.device) -> Iterator[Row]:
    """Extrapolated from ``STEPS`` measured steps."""
    for name, (problem, steps) in EPOCHS.items():
        row: Row = {"task": name, "attention": fast(problem, device, "eager").attention, "measured steps": STEPS}
        for mode in ("eager", "graph"):
            step = attempt(lambda mode=mode, problem=problem: _step(problem, device, mode, STEPS))
            row[f"{mode}, ms/step"] = step
            row[f"{mode}, s/epoch"] = step * steps / 1000 if isinstance(step, float) else ""
        yield row


def ensembles(device: torch.device) -> Iterator[Row]:
    """All members together against as many runs in sequence, eager and as a graph."""
    for problem in (SHORT, IMAGE):
        alone = {mode: attempt(lambda m=mode, p=problem: _step(p, device, m, 50)) for mode in ("eager", "graph")}
        for members in MEMBERS:
            together = attempt(lambda members=members, problem=problem: _ensemble_step(problem, device, members))
            row: Row = {"problem": problem.name, "members": members, "ms/step": together}
            for mode, step in alone.items():
                both = isinstance(step, float) and isinstance(together, float)
                row[f"times faster than {mode} runs"] = members * step / together if both else ""  # pyright: ignore
            yield row


def paddings(device: torch.device) -> Iterator[Row]:
    document, _ = run_lengths(PADDING, "", device=device, precision="bfloat16", say=lambda text: None)
    steps = PADDING.steps * PADDING.rounds
    for row in document["rows"]:
        yield {
            "batches": row["batches"],
            "measured steps": steps,
            "s/epoch": row["seconds"] * LISTOPS_SAMPLES / (steps * PADDING.batch),
            "times faster than padded": row["times faster than padded"]["median"],
        }


def engine_ladder(device: torch.device) -> Iterator[Row]:
    for problem in LADDER_PROBLEMS:
        row: Row = {"problem": problem.name}
        row["eager float32"] = attempt(lambda p=problem: _measured(start(p, device, Engine()), 50))
        for mode in LADDER:
            torch.compiler.reset()  # or the second problem's other shapes would be compiled as unknown ones
            row[f"{mode} bfloat16"] = attempt(lambda p=problem, mode=mode: _step(p, device, mode, 50))
        yield row


def fast(problem: Problem, device: torch.device, mode: Mode) -> Engine:
    """bfloat16 with the attention kernel that a run would choose."""
    engine = Engine(precision="bfloat16", mode=mode)
    shape = Shape(
        sequences=problem.batch, heads=problem.heads, length=problem.length, d_head=problem.d_model // problem.heads,
        precision="bfloat16", masked=False, causal=False,
    )  # fmt: skip
    return dataclasses.replace(engine, attention=choose_attention(engine, shape, device).kernel)


def start(problem: Problem, device: torch.device, engine: Engine) -> Ours:
    """RuntimeError if the engine cannot be had: another one's time must not stand in its place."""
    ours = Ours(problem, device, engine)
    if ours.trainer.choice.warning is not None:
        raise RuntimeError(ours.trainer.choice.warning)
    return ours


def _step(problem: Problem, device: torch.device, mode: Mode, steps: int) -> float:
    return _measured(start(problem, device, fast(problem, device, mode)), steps)


def _measured(ours: Ours, steps: int) -> float:
    ours.run(10)
    return 1000 * ours.run(steps)[0] / steps


def _ensemble_step(problem: Problem, device: torch.device, members: int, repeats: int = 20) -> float:
    engine = fast(problem, device, "eager")
    trainers = [dataclasses.replace(problem, seed=m).trainer(device, engine) for m in range(members)]
    ensemble = Ensemble(trainers)
    updates = [Update(trainer=t, batch=t.batches(0)[0], epoch=0) for t in trainers]

    def train(times: int) -> None:
        for _ in range(times):
            ensemble.update(updates)

    train(3)
    return 1000 * timed(lambda: train(repeats), device)[0] / repeats


def attempt(measure: Callable[[], float]) -> float | str:
    """A number, or why there is none: one failing cell must not cost the table."""
    try:
        return measure()
    except RuntimeError as error:  # out of memory, a kernel that refuses, a capture that fails
        return reason(error)


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
