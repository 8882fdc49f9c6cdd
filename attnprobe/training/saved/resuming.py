"""What resume.pt must hold before anything of it is used: a wrong shape of a moment would crash the optimizer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnprobe.errors import ArtifactError, shown
from attnprobe.files import reading
from attnprobe.training.guards.losses import MOST_RESTARTS, WINDOW
from attnprobe.training.saved.checkpoint import check_tensors
from attnprobe.training.saved.documents import read_document
from attnprobe.training.saved.run_directory import START_AGAIN

RESUME_FORMAT = "attnprobe resume state"
RESUME_VERSION = 2
MOMENTS = ("exp_avg", "exp_avg_sq")


def read_resume(path: Path, phases: Sequence[str]) -> dict[str, Any]:
    """The content of resume.pt of a run with these phases; ArtifactError unless all but ``trainer`` is as expected."""
    document = read_state(path)
    with reading(path, START_AGAIN):
        missing = {"phase", "finished", "trainer", "sizes", "seconds"} - set(document)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        phase, seconds, sizes = document["phase"], document["seconds"], document["sizes"]
        if phase not in phases or document["finished"] != list(phases[: phases.index(phase)]):
            raise ValueError(f"phase {shown(phase)} is not where this run can be")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"{shown(seconds)} are no seconds")
        if not all(isinstance(name, str) and is_count(size) for name, size in sizes.items()):
            raise ValueError("the sizes of the run's records are no sizes")
        if set(document["trainer"]) != {"model", "optimizer", "progress"}:
            raise ValueError("the trainer's state is incomplete")
    return document


def read_state(path: Path) -> dict[str, Any]:
    """Any resume.pt, unchecked; an ArtifactError says how to go on without it."""
    try:
        return read_document(path, RESUME_FORMAT, RESUME_VERSION)
    except ArtifactError as error:
        error.hint = f"{error.hint}; or {START_AGAIN}"
        raise


def is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def is_number(value: object) -> bool:
    return type(value) in (int, float)


def checked_optimizer(found: Mapping[str, Any], own: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The state to load into AdamW: moments of the file, settings of the optimizer ``own`` was taken from.

    parameters: in the optimizer's order. ValueError unless every moment has its parameter's shape and type.
    """
    order = [group["params"] for group in own["param_groups"]]
    if [group["params"] for group in found["param_groups"]] != order:
        raise ValueError("its optimizer has other parameters")
    for number, moments in found["state"].items():
        if not is_count(number) or number >= len(parameters):
            raise ValueError(f"its optimizer knows parameter {shown(number)}, which is not there")
        expected: Mapping[str, Tensor] = dict.fromkeys(MOMENTS, parameters[number])
        check_tensors(moments, {**expected, "step": torch.zeros(())})
        if not (torch.isfinite(moments["step"]) and moments["step"] >= 0):
            raise ValueError("its optimizer has made an impossible number of steps")
    return {"state": found["state"], "param_groups": own["param_groups"]}


def check_progress(
    progress: Mapping[str, Any], model: dict[str, Tensor], *, steps: int, steps_per_epoch: int, metric: str
) -> None:
    """ValueError unless the fields of a ``Progress`` are of their kinds, possible, and in accord with each other.

    metric: the number by which the best epoch was chosen.
    """
    step, sums = progress["step"], progress["sums"]
    if not is_count(step) or step > steps:
        raise ValueError(f"step {shown(step)} is not one of {steps}")
    finished, inside = divmod(step, steps_per_epoch)
    if sums is not None:
        check_tensors({"sums": sums}, {"sums": torch.zeros(3)})
    elif inside:
        raise ValueError("the sums of the running epoch are missing")
    for name in ("best_epoch", "improved"):
        epoch = progress[name]
        if type(epoch) is not int or epoch not in (range(finished) if finished else [-1]):
            raise ValueError(f"epoch {shown(epoch)} cannot be the best of {finished}")
    if not all(is_count(value) or (name == "best" and is_number(value)) for name, value in progress["plateau"].items()):
        raise ValueError("what it remembers of a plateau is no number")
    check_losses(progress, steps_per_epoch)
    numbers = progress["best_numbers"]
    if not all(isinstance(name, str) and is_number(value) for name, value in numbers.items()):
        raise ValueError("the best epoch's numbers are no numbers")
    if finished and metric not in numbers:
        raise ValueError(f"the best epoch lacks its {metric}")
    check_tensors(progress["best_state"], model if finished else {})


def check_losses(progress: Mapping[str, Any], steps_per_epoch: int) -> None:
    """The same of what the guards keep, which earlier versions did not write."""
    losses, before = progress.get("losses"), progress.get("before", torch.zeros(0))
    if losses is not None:
        check_tensors({"losses": losses}, {"losses": torch.zeros(steps_per_epoch)})
    if not isinstance(before, Tensor) or before.dim() != 1 or before.dtype != torch.float32 or len(before) > WINDOW:
        raise ValueError("its losses of earlier epochs are none")
    restarts = progress.get("restarts", [])
    if not isinstance(restarts, list) or len(restarts) > MOST_RESTARTS:
        raise ValueError("its restarts are no list of a few")
    if not all(isinstance(own, dict) and all(map(is_count, own.values())) for own in restarts):
        raise ValueError("what it remembers of a restart is no number")
