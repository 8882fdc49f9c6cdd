"""Updates of several models at once: their batches side by side, and AdamW on stacked parameters."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.tasks import Batch
from attnprobe.training.updates.optim import scale_of


def join(batches: Sequence[Batch]) -> Batch:
    """Member after member; where they were trimmed to different lengths, padded to the longest."""
    valid = [b.valid for b in batches if b.valid is not None]
    inputs = [b.inputs for b in batches]
    if valid:
        axis = valid[0].dim() - 1  # of positions
        longest = max(v.shape[axis] for v in valid)
        inputs = [_padded(x, axis, longest) for x in inputs]
        valid = [_padded(v, axis, longest) for v in valid]
    return Batch(
        inputs=torch.cat(inputs),
        labels=torch.cat([b.labels for b in batches]),
        sample=torch.cat([b.sample for b in batches]),
        valid=torch.cat(valid) if valid else None,
    )


def _padded(x: Tensor, axis: int, length: int) -> Tensor:
    return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [0, length - x.shape[axis]])


class Rule(NamedTuple):
    """How a member updates a parameter."""

    scale: float  # of the member's learning rate
    decay: float


class StackedAdamW:
    """AdamW on stacked parameters with a learning rate and a weight decay per member (Loshchilov and Hutter 2019).

    Its averages are views that the members' own optimizers share, so that each can be saved and continued alone. The
    update is torch's fused one, as it is alone: of all members at once where their rates and decays agree, else member
    by member.
    """

    def __init__(self, whole: nn.Module, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.AdamW]) -> None:
        self.optimizers = optimizers
        own = [dict(m.named_parameters()) for m in models]
        groups = [{id(p): g for g in o.param_groups for p in g["params"]} for o in optimizers]
        self.stacks: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}
        self.entries: list[tuple[nn.Parameter, list[nn.Parameter], tuple[Rule, ...]]] = []
        for name, parameter in whole.named_parameters():
            if parameter.requires_grad:
                members = [parameters[name] for parameters in own]
                own_groups = [g[id(p)] for g, p in zip(groups, members, strict=True)]
                rules = tuple(Rule(scale=scale_of(g), decay=g["weight_decay"]) for g in own_groups)
                self.entries.append((parameter, list(members), rules))

    @torch.no_grad()
    def step(self, rates: Sequence[float], clip: float | None) -> None:
        """rates: one per member; clip: the largest gradient norm of a member."""
        used = [entry for entry in self.entries if entry[0].grad is not None]
        gradients = [p.grad for p, _, _ in used if p.grad is not None]
        if clip is not None:
            squares = sum(g.flatten(1).square().sum(1) for g in gradients)
            scale = (clip / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1)
            for gradient in gradients:
                gradient.mul_(along(scale, gradient))
        states = [self._state(parameter, members) for parameter, members, _ in used]
        torch._foreach_add_([count for _, _, count in states], 1)  # pyright: ignore[reportPrivateImportUsage]
        alike = len(set(rates)) == 1 and all(len(set(rules)) == 1 for _, _, rules in used)
        for member in [None] if alike else range(len(rates)):
            by_rule: dict[Rule, list[Sequence[Tensor]]] = {}
            for (parameter, _, rules), gradient, (mean, square, count) in zip(used, gradients, states, strict=True):
                four = (parameter, gradient, mean, square)
                mine = four if member is None else [tensor[member] for tensor in four]
                by_rule.setdefault(rules[member or 0], []).append((*mine, count))
            for rule, tensors in by_rule.items():
                self._update(tensors, rates[member or 0] * rule.scale, rule.decay)

    def _update(self, tensors: Sequence[Sequence[Tensor]], rate: float, decay: float) -> None:
        """tensors: parameter, gradient, average, average of squares, number of updates; rate and decay are theirs."""
        group = self.optimizers[0].param_groups[0]
        beta1, beta2 = group["betas"]
        parameters, gradients, means, squares, counts = (list(column) for column in zip(*tensors, strict=True))
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            parameters, gradients, means, squares, [], counts, lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay,
            eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def _state(self, parameter: Tensor, members: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The stacked averages and the common number of updates, made from the members' own on first use."""
        if parameter not in self.stacks:
            own = [o.state[p] for o, p in zip(self.optimizers, members, strict=True)]
            known = len(own[0]) > 0
            averages = [
                torch.stack([s[key] for s in own]) if known else torch.zeros_like(parameter)
                for key in ("exp_avg", "exp_avg_sq")
            ]
            count = own[0]["step"].clone() if known else torch.zeros((), device=parameter.device)
            for number, state in enumerate(own):
                state |= {"step": count, "exp_avg": averages[0][number], "exp_avg_sq": averages[1][number]}
            self.stacks[parameter] = (averages[0], averages[1], count)
        return self.stacks[parameter]


def along(values: Tensor, parameter: Tensor) -> Tensor:
    """(members,) shaped to be multiplied with a stacked parameter."""
    return values.view(-1, *[1] * (parameter.dim() - 1))
