"""The learning-rate schedule as a pure function of where a phase stands, and AdamW's parameter groups."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from attnprobe.run import Optimizer


def learning_rate(optimizer: Optimizer, step: int, steps: int, *, epoch: int = 0, reductions: int = 0) -> float:
    """Rate of update ``step`` (0 .. steps - 1): a linear warm-up, then what the schedule says.

    epoch: the one the step belongs to, from 0; reductions: how often a plateau has lowered the rate.
    """
    if optimizer.schedule == "multistep":
        reductions = sum(milestone <= epoch for milestone in optimizer.milestones)
    peak = optimizer.lr * optimizer.factor**reductions if reductions else optimizer.lr
    warmup = warmup_steps(optimizer, steps)
    if step < warmup:
        return peak * (step + (optimizer.warmup_start == "step")) / warmup
    if optimizer.schedule != "cosine":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def warmup_steps(optimizer: Optimizer, steps: int) -> int:
    return optimizer.warmup if isinstance(optimizer.warmup, int) else round(optimizer.warmup * steps)


def make_optimizer(config: Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases, norms and embeddings are not decayed unless ``decay`` is "all"."""
    trainable = [(name, p) for name, p in parameters if p.requires_grad]
    decayed = [p for name, p in trainable if config.decay == "all" or is_matrix(name, p)]
    rest = [p for name, p in trainable if not (config.decay == "all" or is_matrix(name, p))]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2 and not name.startswith(("embedding.table", "positions."))
