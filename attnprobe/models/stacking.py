"""Several models as one: every parameter gets a leading member axis, members are folded into the batch axis.

``stack`` replaces each part that holds parameters by its twin, which sees (members * batch, ...) as (members, batch,
...); everything else runs unchanged on members * batch sequences. The members' own parameters become views of the
stacked ones, so each model can be evaluated and saved as if it had been trained alone.
"""

import copy
from collections.abc import Sequence

from torch import nn

from attnprobe.errors import NotApplicableError
from attnprobe.models.parts import NO_TWIN, below
from attnprobe.models.torch_layers import has_state, twin_of
from attnprobe.models.transformer import Transformer


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
    twins: dict[int, nn.Module] = {}
    _find_twins(models, "", twins)
    whole = copy.deepcopy(first, twins)  # which takes the twins for copies it has already made
    _check(first, whole, len(models))
    own, parameters = first.state_dict(), dict(whole.named_parameters())
    buffers = {name: buffer for name, buffer in whole.named_buffers() if name in own}
    for number, model in enumerate(models):
        for name, parameter in model.named_parameters():
            parameter.data = parameters[name].data[number]
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.data = buffers[name].data[number]
    return whole


def _find_twins(layers: Sequence[nn.Module], name: str, found: dict[int, nn.Module]) -> None:
    """Add the twins of all parts of ``layers``, by the identity of the first member's part."""
    if id(layers[0]) in found:  # shared within the model
        return
    try:
        twin = twin_of(layers)
        if twin is None and has_state(layers[0]):
            raise NotApplicableError(f"{type(layers[0]).__name__} does not say how", NO_TWIN)
    except NotApplicableError as error:
        raise NotApplicableError(
            f"{name or 'the model'} cannot be stacked into an ensemble: {error}", NO_TWIN
        ) from None
    if twin is not None:
        found[id(layers[0])] = twin
        return
    for child, _ in layers[0].named_children():
        _find_twins([layer.get_submodule(child) for layer in layers], below(name, child), found)


def _check(one: nn.Module, whole: nn.Module, members: int) -> None:
    """NotApplicableError unless every tensor of ``one`` has a stacked counterpart, and parameters are shared alike."""
    own, state = one.state_dict(), whole.state_dict()
    for name in sorted(own.keys() | state.keys()):
        wanted = [members, *own[name].shape] if name in own else None
        found = list(state[name].shape) if name in state else None
        if found != wanted:
            raise NotApplicableError(
                f"{name} cannot be stacked: its twin has shape {found} instead of {wanted}", NO_TWIN
            )
    if [name for name, _ in one.named_parameters()] != [name for name, _ in whole.named_parameters()]:
        raise NotApplicableError("parameters that several parts of a model share cannot be stacked", NO_TWIN)
