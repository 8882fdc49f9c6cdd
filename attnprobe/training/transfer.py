"""What a model takes over from an earlier one, and which of its parameters stay fixed."""

import dataclasses

import torch
from torch import Tensor, nn

from attnprobe.errors import ConfigError
from attnprobe.models import Transformer
from attnprobe.models.parameter_sets import matching, sets_of
from attnprobe.models.parts import Part, below

# Heads depend on the task, so they may start afresh when shapes differ; anything else must fit.
HEADS = ("label_head.", "reconstruction_head.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a fresh model took over from an earlier one, and what it did not."""

    carried: tuple[str, ...]
    fresh: tuple[str, ...]  # not asked for
    unfit: tuple[str, ...]  # asked for, but a head of another size


def transfer(model: Transformer, source: Transformer, wanted: str | tuple[str, ...]) -> Transfer:
    """Copy the parameters named by ``wanted`` (a set's name or patterns) from ``source`` into ``model``.

    With all parameters of a part go its buffers, such as the running averages of a batch norm.
    """
    own, given = dict(model.named_parameters()), source.state_dict()
    selected = match_parameters(model, wanted, "transfer")
    unfit = {n for n in selected if n not in given or given[n].shape != own[n].shape}
    wrong = sorted(n for n in unfit if not n.startswith(HEADS))
    if wrong:
        have = tuple(given[wrong[0]].shape) if wrong[0] in given else "nothing of that name"
        message = f"cannot carry over {wrong[0]}: shape {tuple(own[wrong[0]].shape)} is needed, the source has {have}"
        raise ConfigError(message, hint=_remedy(model, source))
    with torch.no_grad():
        for name in sorted(selected - unfit):
            own[name].copy_(given[name])
        for name, buffer in _buffers_of(model, selected - unfit).items():
            if name in given and given[name].shape == buffer.shape:
                buffer.copy_(given[name])
    _tell_parts(model, source, selected - unfit)
    return Transfer(
        carried=tuple(sorted(selected - unfit)),
        fresh=tuple(sorted(set(own) - selected)),
        unfit=tuple(sorted(unfit)),
    )


def _remedy(model: Transformer, source: Transformer) -> str:
    own, given = model.spec.length, source.spec.length
    if own == given:
        return "use the same model settings in both phases, or transfer fewer parameters"
    reason = f"sequences have {own} positions here, those of the source {given}, and some parameters belong to a length"
    return f"{reason}: transfer fewer, or take other model.positions (sinusoidal, rotary) or another model.mixer"


def _tell_parts(model: nn.Module, source: nn.Module, carried: set[str]) -> None:
    for place, part in model.named_modules():
        names = {name for name, _ in part.named_parameters(recurse=False) if below(place, name) in carried}
        if names and isinstance(part, Part):
            part.carried(source.get_submodule(place), names)


def _buffers_of(model: nn.Module, parameters: set[str]) -> dict[str, Tensor]:
    """Persistent buffers, by name, of the parts whose parameters are all among these."""
    own = {name for name, _ in model.named_parameters()}
    found = {}
    for name in model.state_dict().keys() - own:
        part = name.rpartition(".")[0]
        beside = {parameter for parameter in own if parameter.startswith(f"{part}.")}
        if beside and beside <= parameters:
            found[name] = model.get_buffer(name)
    return found


def freeze(model: nn.Module, wanted: str | tuple[str, ...]) -> set[str]:
    """Keep the parameters named by ``wanted`` fixed; returns their names."""
    own = dict(model.named_parameters())
    frozen = match_parameters(model, wanted, "freeze")
    for name in frozen:
        own[name].requires_grad_(False)
    return frozen


def match_parameters(model: nn.Module, wanted: str | tuple[str, ...], field: str) -> set[str]:
    """Names of the parameters that a set's name or patterns stand for; ConfigError if that is none of this model's."""
    if isinstance(wanted, str):
        sets = sets_of(model)
        if wanted not in sets:
            message = f"{field} {wanted!r} names no parameters of this model"
            raise ConfigError(message, hint=f"it has the sets {', '.join(sorted(sets))}; or give a list of patterns")
        return sets[wanted]
    names = [name for name, _ in model.named_parameters()]
    for pattern in wanted:
        if not matching(names, (pattern,)):
            hint = f"parameters are named like {', '.join(names[:4])}"
            raise ConfigError(f"{field} pattern {pattern!r} matches no parameter of this model", hint=hint)
    return matching(names, wanted)
