"""The learning-rate schedule as a pure function of where a phase stands, and AdamW's parameter groups."""

import math
from typing import Any

import torch
from torch import nn

from attnprobe.errors import RunError
from attnprobe.models.parts import Part, Update, below, gather
from attnprobe.run import Optimizer


def learning_rate(optimizer: Optimizer, step: int, steps: int, *, epoch: int = 0, reductions: int = 0) -> float:
    """Rate of update ``step`` (0 .. steps - 1): a linear warm-up, then what the schedule says.

    epoch: the one the step belongs to, from 0; reductions: how often a plateau has lowered the rate.
    """
    if optimizer.schedule == "multistep":
        reductions = sum(milestone <= epoch for milestone in optimizer.milestones)
    peak = optimizer.lr * optimizer.factor**reductions if reductions else optimizer.lr
    warmup = warmup_steps(optimizer, steps)
    counted = step + (optimizer.warmup_start == "step")  # from 1 or from 0
    if step < warmup:
        return peak * counted / warmup
    if optimizer.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(1, warmup) / max(1, counted))
    if optimizer.schedule not in ("cosine", "linear"):
        return peak
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (1 - done if optimizer.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def warmup_steps(optimizer: Optimizer, steps: int) -> int:
    return optimizer.warmup if isinstance(optimizer.warmup, int) else round(optimizer.warmup * steps)


def make_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in groups of one decay and one rate.

    Biases, norms and embeddings are not decayed unless ``decay`` is "all". A part that declares a learning rate of its
    own gets it on the schedule of the settings: its group has a ``scale``, by which every rate is multiplied.
    RunError if a part declares something of what is no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    declared = gather(model, _updates)
    for name in declared.keys() - parameters.keys():
        raise RunError(f"an update of {name} is declared, which is no parameter", hint="mend updates() of its part")
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            update = declared.get(name, Update())
            scale = 1.0 if update.lr is None else update.lr / config.lr
            groups.setdefault((decays(config, update, parameter), scale), []).append(parameter)
    made = [
        {"params": members, "weight_decay": config.weight_decay if decayed else 0.0}
        | ({} if scale == 1 else {"scale": scale})
        for (decayed, scale), members in groups.items()
        if members
    ]
    return torch.optim.AdamW(made, lr=config.lr, betas=config.betas, fused=True)


def decays(config: Optimizer, update: Update, parameter: nn.Parameter) -> bool:
    kind = update.decay or ("matrix" if parameter.dim() >= 2 else "bias")
    return kind == "matrix" or (kind == "bias" and config.decay == "all")


def scale_of(group: dict[str, Any]) -> float:
    """What the schedule's rate is multiplied with in this group of an optimizer."""
    return group.get("scale", 1.0)


def _updates(module: nn.Module, prefix: str) -> dict[str, Update]:
    found = module.updates() if isinstance(module, Part) else {}
    return {below(prefix, name): update for name, update in found.items()}
