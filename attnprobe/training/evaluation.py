"""Loss and accuracy over a whole split."""

import dataclasses
import math

import torch

from attnprobe.models import Transformer
from attnprobe.models.mixers.state_space.layer import unchanging
from attnprobe.objectives import EVALUATION, Objective, Regression
from attnprobe.run import Engine, Phase
from attnprobe.tasks import Split
from attnprobe.training.buckets import evaluation_batch, evaluation_batches, trims
from attnprobe.training.distributed import World
from attnprobe.training.selection import Numbers
from attnprobe.training.updates.arithmetic import process_settings
from attnprobe.training.updates.steppers import arithmetic


def evaluate_phase(
    model: Transformer,
    split: Split,
    phase: Phase,
    engine: Engine,
    *,
    seed: int,
    world: World | None = None,
    masks: int = EVALUATION,
) -> Numbers:
    """``evaluate`` as the phase wants it: the whole split, or only as many samples as fill the phase's batches."""
    if phase.evaluation == "drop_last":
        size = min(phase.batch_size, len(split))
        split, engine = split.head(len(split) // size * size), dataclasses.replace(engine, evaluation_batch=size)
    return evaluate(model, split, phase.objective, engine, seed=seed, world=world, masks=masks)


@torch.inference_mode()
def evaluate(
    model: Transformer,
    split: Split,
    objective: Objective,
    engine: Engine,
    *,
    seed: int,
    world: World | None = None,
    masks: int = EVALUATION,
) -> Numbers:
    """Loss and accuracy over a whole split, every sample counted once. masks: the counter of what is hidden.

    The processes of a ``world`` take turns with the batches and add up their sums, so all of them must call this.
    """
    device, rank, size = split.labels.device, 0 if world is None else world.rank, 1 if world is None else world.size
    sums = torch.zeros(3, device=device, dtype=torch.float64)
    batch_size = min(evaluation_batch(split, engine), -(-len(split) // size))
    trim, mixed = trims(split, model.config, engine), engine.batching == "longest"
    batches = evaluation_batches(split, batch_size, trim, mixed=mixed)
    with unchanging(model):
        for number in range(rank, len(batches), size):
            with process_settings(engine), arithmetic(device, engine), model.evaluating():
                losses = objective.losses(model, batches[number], seed=seed, epoch=masks)
            sums += torch.stack(losses.sums())
    sums = sums if world is None else world.all_reduce(sums)
    numbers = means(sums, objective)
    if isinstance(objective, Regression):
        variance = split.labels.double().var(correction=0).item()
        numbers["r2"] = 1 - numbers["loss"] / variance if variance > 0 else -math.inf
    return numbers


def means(sums: torch.Tensor, objective: Objective) -> Numbers:
    loss, count, correct = sums.tolist()
    numbers = {"loss": loss / max(count, 1)}
    if math.isfinite(correct):
        numbers["accuracy"] = correct / max(count, 1)
    return numbers
