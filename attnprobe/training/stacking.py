"""Several models trained as one: every parameter gets a leading member axis, members are folded into the batch axis.

``stack`` replaces each layer that holds parameters by a twin that sees (members * batch, ...) as (members, batch, ...);
everything else, attention included, runs unchanged on members * batch sequences. The members' own parameters become
views of the stacked ones, so each model can be evaluated and saved as if it had been trained alone.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.errors import NotApplicableError
from attnprobe.models import Transformer
from attnprobe.models.embeddings import ClassToken
from attnprobe.models.positions import LearnedPositions
from attnprobe.tasks import Batch


class StackedLinear(nn.Module):
    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight, self.bias = stacked([m.weight for m in layers]), stacked([m.bias for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        members = x.reshape(len(self.weight), -1, x.shape[-1])
        return torch.baddbmm(self.bias[:, None], members, self.weight.mT).view(*x.shape[:-1], -1)


class StackedLayerNorm(nn.Module):
    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.weight, self.bias = stacked([m.weight for m in layers]), stacked([m.bias for m in layers])
        self.eps = layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x, x.shape[-1:], eps=self.eps).view(len(self.weight), -1, x.shape[-1])
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None]).view_as(x)


class StackedEmbedding(nn.Module):
    def __init__(self, layers: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.weight = stacked([m.weight for m in layers])

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (members * batch, length): each member has rows of its own in one long table."""
        members, vocabulary, _ = self.weight.shape
        first = torch.arange(members, device=tokens.device).repeat_interleave(len(tokens) // members) * vocabulary
        return F.embedding(tokens + first[:, None], self.weight.flatten(0, 1))


class StackedPositions(nn.Module):
    def __init__(self, layers: Sequence[LearnedPositions]) -> None:
        super().__init__()
        self.table = stacked([m.table for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        folded = x.unflatten(0, (len(self.table), -1)) + self.table[:, None, : x.shape[1]]
        return folded.flatten(0, 1)


class StackedToken(nn.Module):
    def __init__(self, layers: Sequence[ClassToken]) -> None:
        super().__init__()
        self.vector = stacked([m.vector for m in layers])

    def forward(self, x: Tensor) -> Tensor:
        own = self.vector.to(x.dtype).repeat_interleave(len(x) // len(self.vector), dim=0)
        return torch.cat([own[:, None], x], dim=1)


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: StackedLinear,
    nn.LayerNorm: StackedLayerNorm,
    nn.Embedding: StackedEmbedding,
    LearnedPositions: StackedPositions,
    ClassToken: StackedToken,
}


def stacked(parameters: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([p.detach() for p in parameters]), requires_grad=parameters[0].requires_grad)


def stack(models: Sequence[Transformer]) -> Transformer:
    """One model that acts like ``models`` on a batch of (members * batch) sequences, member after member.

    Afterwards the parameters of ``models`` are views of its own. NotApplicableError if they cannot be stacked.
    """
    first = models[0]
    if any(m.config != first.config or m.spec != first.spec or m.target != first.target for m in models):
        raise NotApplicableError(
            "only models of one shape can be trained as an ensemble",
            hint="train them side by side: leave out --together",
        )
    whole = copy.deepcopy(first)
    for name, module in first.named_modules():
        if type(module) in TWINS:
            twin = TWINS[type(module)]([m.get_submodule(name) for m in models])
            parent, _, attribute = name.rpartition(".")
            setattr(whole.get_submodule(parent), attribute, twin)
    parameters = dict(whole.named_parameters())
    assert parameters.keys() == dict(first.named_parameters()).keys(), "every parameter must have a stacked twin"
    for number, model in enumerate(models):
        for name, parameter in model.named_parameters():
            parameter.data = parameters[name].data[number]
    return whole


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
        self.entries: list[tuple[nn.Parameter, list[nn.Parameter], tuple[float, ...]]] = []
        for name, parameter in whole.named_parameters():
            if parameter.requires_grad:
                members = [parameters[name] for parameters in own]
                decays = tuple(g[id(p)]["weight_decay"] for g, p in zip(groups, members, strict=True))
                self.entries.append((parameter, list(members), decays))

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
        alike = len(set(rates)) == 1 and all(len(set(decays)) == 1 for _, _, decays in used)
        for member in [None] if alike else range(len(rates)):
            by_decay: dict[float, list[Sequence[Tensor]]] = {}
            for (parameter, _, decays), gradient, (mean, square, count) in zip(used, gradients, states, strict=True):
                four = (parameter, gradient, mean, square)
                mine = four if member is None else [tensor[member] for tensor in four]
                by_decay.setdefault(decays[member or 0], []).append((*mine, count))
            for decay, tensors in by_decay.items():
                self._update(tensors, rates[member or 0], decay)

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
