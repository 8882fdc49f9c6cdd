"""What the GPU suite measures: attention kernels, graph against eager, epoch times, paddings, ensembles, engines.

A part is a list of functions, one for each row of its table, which compute nothing before they are called.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from attnprobe.bench.peers import Ours, timed
from attnprobe.bench.problem import Problem
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import Classification
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data
from attnprobe.tasks.listops.task import ListOps
from attnprobe.training.ensembles.ensemble import Ensemble
from attnprobe.training.loop import Trainer, Update
from attnprobe.training.updates.attention_kernels import KERNELS, Shape, choose_attention, deviation, milliseconds
from attnprobe.training.updates.steppers import Mode

Row = dict[str, Any]
Rows = Sequence[Callable[[], Row]]

IMAGE = Problem(length=1024, batch=32, layers=3)
SHORT = Problem(length=256, batch=32)
PATHFINDER = Problem(length=1024, batch=32, d_model=128, layers=4, d_mlp=512)
LISTOPS = Problem(length=2048, batch=64, d_model=512, layers=6, heads=8, d_mlp=1024)  # padded; values, not tokens
TASK = ListOps(n_train=64 * 208, n_validation=1, n_test=1)  # at its own lengths
ENSEMBLE_STEPS = 20  # timed
MODEL = TransformerConfig(d_model=512, layers=6, heads=8, d_mlp=1024)


def _shape(sequences: int, heads: int, length: int, d_head: int, *, masked: bool = False) -> Shape:
    return Shape(
        sequences=sequences, heads=heads, length=length, d_head=d_head, precision="bfloat16", masked=masked,
        causal=False,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    shapes: tuple[Shape, ...] = (
        _shape(32, 4, 1024, 16), _shape(32, 8, 1024, 16), _shape(32, 4, 1024, 32), _shape(64, 8, 2048, 64),
        _shape(64, 8, 2048, 64, masked=True),
    )  # fmt: skip
    short: Problem = SHORT
    long: Problem = IMAGE
    epochs: tuple[tuple[str, Problem, int], ...] = (  # with the steps of one
        ("image", IMAGE, 1406), ("pathfinder", PATHFINDER, 5000), ("listops, padded", LISTOPS, 1500)
    )  # fmt: skip
    members: tuple[int, ...] = (1, 2, 4, 8, 16)
    steps: int = 200  # behind every extrapolated epoch
    task: ListOps = TASK
    model: TransformerConfig = MODEL
    batch: int = 64
    samples: int = 96_000  # of an epoch of ListOps


class Failure(str):
    """The reason why a cell holds no number. After one, the following rows get a process of their own."""

    __slots__ = ()


def attempt(measure: Callable[[], float]) -> float | Failure:
    """A number, or why there is none: one failing cell must not cost the table."""
    try:
        return measure()
    except RuntimeError as error:  # out of memory, a kernel that refuses, a capture that fails
        return Failure(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}")


def attention_kernels(plan: Plan, device: torch.device) -> Rows:
    return [partial(_attention_row, shape, device) for shape in plan.shapes]


def _attention_row(shape: Shape, device: torch.device) -> Row:
    row: Row = {"batch x heads": shape.sequences * shape.heads, "length": shape.length, "d_head": shape.d_head}
    row["mask"] = "yes" if shape.masked else "no"
    for kernel in KERNELS:
        row[kernel] = milliseconds(kernel, shape, device) or "refused"
        row[f"{kernel}, error"] = "" if row[kernel] == "refused" else deviation(kernel, shape, device)
    return row | {"chosen": choose_attention(Engine(), shape, device).kernel}


def check_graph(plan: Plan, device: torch.device) -> Rows:
    """Each against an eager run with the same attention kernel; "eager again" is the noise of kernels that add up in
    any order. "math" has none of those.
    """
    modes: tuple[Mode, ...] = ("eager", "graph")
    return [
        partial(_graph_row, plan, device, Engine(attention=kernel), mode)
        for kernel in ("math", "auto")
        for mode in modes
    ]


def _graph_row(plan: Plan, device: torch.device, engine: Engine, mode: Mode) -> Row:
    found: list[float] = []

    def losses() -> float:
        found.extend(differences(plan.short, device, engine, mode))
        return found[0]

    row: Row = {"kernel": engine.attention, "run": "eager again" if mode == "eager" else mode}
    return row | {"losses differ by": attempt(losses), "parameters differ by": found[1] if found else ""}


def differences(
    problem: Problem, device: torch.device, engine: Engine, mode: Mode, steps: int = 20
) -> tuple[float, float]:
    """Largest relative difference of a loss and largest difference of a parameter from an eager run.

    Key biases are left out: softmax does not see them, so their gradient is rounding, which AdamW makes a full step.
    """
    problem = dataclasses.replace(problem, batches=4)
    eager, other = start(problem, device, engine), start(problem, device, dataclasses.replace(engine, mode=mode))
    for run in (eager, other):
        run.run(steps)
        _check_mode(run)
    ours, theirs = (torch.stack(run.losses).double() for run in (eager, other))
    pairs = zip(eager.model.named_parameters(), other.model.parameters(), strict=True)
    apart = [float((a - b).detach().abs().max()) for (name, a), b in pairs if not name.endswith("attention.k.bias")]
    return float(((ours - theirs) / ours).abs().max()), max(apart)


def epochs(plan: Plan, device: torch.device) -> Rows:
    """Extrapolated from ``plan.steps`` measured steps."""
    return [partial(_epoch_row, plan, device, *epoch) for epoch in plan.epochs]


def _epoch_row(plan: Plan, device: torch.device, name: str, problem: Problem, steps: int) -> Row:
    row: Row = {"task": name, "attention": fast(problem, device, "eager").attention, "measured steps": plan.steps}
    for mode in ("eager", "graph"):
        step = attempt(partial(_step, problem, device, mode, plan.steps))
        row[f"{mode}, ms/step"] = step
        row[f"{mode}, s/epoch"] = step * steps / 1000 if isinstance(step, float) else ""
    return row


def paddings(plan: Plan, device: torch.device) -> Rows:
    """ListOps at its own lengths: the same samples padded as published, and in buckets of similar lengths."""
    return [partial(_padding_row, plan, device, batching) for batching in ("padded", "buckets")]


def _padding_row(plan: Plan, device: torch.device, batching: Any) -> Row:
    data = _load(plan.task).to(device)
    shape = _shape(plan.batch, plan.model.heads, data.spec.length, plan.model.d_model // plan.model.heads, masked=True)
    engine = Engine(precision="bfloat16", batching=batching)
    engine = dataclasses.replace(engine, attention=choose_attention(engine, shape, device).kernel)
    optimizer = Optimizer(schedule="constant", warmup=0)
    phase = Phase(objective=Classification(), batch_size=plan.batch, epochs=1000, optimizer=optimizer)
    model = make_model(plan.model, data.spec, "classes", seed=0).to(device)
    trainer = Trainer(model, data, "bench", phase, engine, seed=0)
    batches = trainer.batches(0)
    measured = min(plan.steps, len(batches))

    def train(numbers: range) -> None:
        for number in numbers:
            trainer.update(batches[number], 0)

    def seconds() -> float:
        train(range(min(3, measured)))
        return timed(lambda: train(range(measured)), device)[0] * plan.samples / (measured * plan.batch)

    return {"batches": batching, "attention": engine.attention, "measured steps": measured, "s/epoch": attempt(seconds)}


@functools.cache
def _load(task: ListOps) -> Data:
    return task.load(None)


def ensembles(plan: Plan, device: torch.device) -> Rows:
    """All members together; a run alone, eager and as a graph, stands in the first row of each problem."""
    rows: list[Callable[[], Row]] = []
    for problem in (plan.short, plan.long):
        rows += [partial(_alone_row, problem, device, mode) for mode in ("eager", "graph")]
        rows += [partial(_ensemble_row, problem, device, members) for members in plan.members]
    return rows


def _alone_row(problem: Problem, device: torch.device, mode: Mode) -> Row:
    step = attempt(partial(_step, problem, device, mode, 50))
    return {"problem": problem.name, "members": f"alone, {mode}", "ms/step": step, "ms/step and member": step}


def _ensemble_row(problem: Problem, device: torch.device, members: int) -> Row:
    step = attempt(partial(_ensemble_step, problem, device, members))
    each = step / members if isinstance(step, float) else ""
    return {"problem": problem.name, "members": str(members), "ms/step": step, "ms/step and member": each}


def engine_ladder(plan: Plan, device: torch.device) -> Rows:
    problems = (plan.long, dataclasses.replace(plan.long, batch=plan.long.batch // 2), plan.short)
    return [partial(_ladder_row, problem, device) for problem in problems]


def _ladder_row(problem: Problem, device: torch.device) -> Row:
    row: Row = {"problem": problem.name}
    row["eager float32"] = attempt(lambda: _measured(start(problem, device, Engine()), 50))
    if device.type == "cuda":
        row["eager tf32"] = attempt(lambda: _measured(start(problem, device, Engine(precision="tf32")), 50))
    for mode in ("eager", "graph", "compiled"):
        torch.compiler.reset()  # or the second problem's other shapes would be compiled as unknown ones
        row[f"{mode} bfloat16"] = attempt(partial(_step, problem, device, mode, 50))
    return row


def fast(problem: Problem, device: torch.device, mode: Mode) -> Engine:
    """bfloat16 with the attention kernel that a run would choose."""
    engine = Engine(precision="bfloat16", mode=mode)
    shape = _shape(problem.batch, problem.heads, problem.length, problem.d_model // problem.heads)
    return dataclasses.replace(engine, attention=choose_attention(engine, shape, device).kernel)


def start(problem: Problem, device: torch.device, engine: Engine) -> Ours:
    """RuntimeError if the engine cannot be had: another one's time must not stand in its place."""
    ours = Ours(problem, device, engine)
    if ours.trainer.choice.warning is not None:
        raise RuntimeError(ours.trainer.choice.warning)
    return ours


def _check_mode(ours: Ours) -> None:
    if ours.trainer.stepper.failure is not None:
        raise RuntimeError(ours.trainer.stepper.failure)


def _step(problem: Problem, device: torch.device, mode: Mode, steps: int) -> float:
    return _measured(start(problem, device, fast(problem, device, mode)), steps)


def _measured(ours: Ours, steps: int) -> float:
    ours.run(10)
    _check_mode(ours)
    return 1000 * ours.run(steps)[0] / steps


def _ensemble_step(problem: Problem, device: torch.device, members: int) -> float:
    engine = fast(problem, device, "eager")
    trainers = [dataclasses.replace(problem, seed=m).trainer(device, engine) for m in range(members)]
    ensemble = Ensemble(trainers)
    updates = [Update(trainer=t, batch=t.batches(0)[0], epoch=0) for t in trainers]

    def train(times: int) -> None:
        for _ in range(times):
            ensemble.update(updates)

    train(3)
    return 1000 * timed(lambda: train(ENSEMBLE_STEPS), device)[0] / ENSEMBLE_STEPS


PARTS: dict[str, Callable[[Plan, torch.device], Rows]] = {
    "attention kernels, ms forward and backward": attention_kernels,
    "graph against eager": check_graph,
    "epochs": epochs,
    "listops at its own lengths": paddings,
    "ensembles": ensembles,
    "engines, ms/step": engine_ladder,  # compiles, so it comes last
}
