"""W_Q and W_K of a foreign model, found without names, and drawn anew as training starts.

They are the entries of an attending module's parameters on which its queries or keys depend but not its values: that
holds for separate projections, for fused ones however they are laid out, for their biases, and for norms of queries
and keys, and leaves out all that stands before them.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall

Initialise = Callable[[nn.Module], object]  # gives the parameters of a module the values with which training starts


def of_hugging_face(model: nn.Module, name: str) -> Initialise | None:
    """How the class of the model around a module starts it; None if there is no such class."""
    around = [name[:end] for end in range(len(name), -1, -1) if end in (0, len(name)) or name[end] == "."]
    for place in around:
        owner = model.get_submodule(place)
        if hasattr(owner, "_init_weights"):
            return lambda module: module.apply(owner._init_weights)  # pyright: ignore[reportArgumentType]
    return None


def entries_of_scores(model: nn.Module, calls: Sequence[AttentionCall]) -> dict[str, dict[str, Tensor]]:
    """Name of an attending module -> name of one of its parameters -> bool of its shape: which entries are W_Q and W_K.

    calls: of a pass with gradients. NotApplicableError, naming the module, if one has none of its own.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for call in calls:
        if call.name in found:  # called again: its later inputs depend on all of it
            continue
        own = {name: p for name, p in model.get_submodule(call.name).named_parameters() if p.requires_grad}
        of_scores = [_depend(x, own) for x in ((call.q, call.k) if call.projected else (call.q,))]
        of_values = _depend(call.v, own)
        entries = {name: torch.stack([one[name] for one in of_scores]).any(0) & ~of_values[name] for name in own}
        found[call.name] = {name: mask for name, mask in entries.items() if bool(mask.any())}
        if not found[call.name]:
            reason = f"{call.name or 'the model'} shows no W_Q and W_K of its own"
            raise NotApplicableError(reason, hint="the null of permuted keys needs no weights")
    return found


def _depend(x: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which entries of the parameters change some entry of x."""
    found = {name: torch.zeros(p.shape, dtype=torch.bool, device=p.device) for name, p in parameters.items()}
    if not parameters or not x.requires_grad:
        return found
    weights = torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype, device=x.device).view(x.shape)  # nothing cancels
    gradients = torch.autograd.grad(
        (x * weights).sum(), list(parameters.values()), retain_graph=True, materialize_grads=True, allow_unused=True
    )
    return {name: gradient != 0 for name, gradient in zip(parameters, gradients, strict=True)}


def drawn_anew(
    model: nn.Module, entries: Mapping[str, Mapping[str, Tensor]], initialise: Initialise | None, seed: int
) -> dict[str, Tensor]:
    """Parameters with these entries as training starts, and all other entries as they are.

    Different seeds, and models with other weights, give independent draws. NotApplicableError, naming a parameter,
    if nobody says how it starts.
    """
    digest = hashlib.blake2b(digest_size=7)  # of what they were, so that models share no draws
    for owner, masks in entries.items():
        for name, mask in masks.items():
            was = model.get_submodule(owner).get_parameter(name).detach()[mask]
            digest.update(was.float().cpu().numpy().tobytes())
    drawn: dict[str, Tensor] = {}
    with torch.random.fork_rng(), torch.no_grad():  # the models' own code draws from the global generator
        torch.manual_seed(seed ^ int.from_bytes(digest.digest(), "little"))
        for owner, masks in entries.items():
            start = initialise or of_hugging_face(model, owner)
            for name, parameter in _started(model.get_submodule(owner), masks, start).items():
                drawn[f"{owner}.{name}".removeprefix(".")] = parameter
    return drawn


def _started(module: nn.Module, masks: Mapping[str, Tensor], start: Initialise | None) -> dict[str, Tensor]:
    """These parameters of a module, with the entries that the masks name as ``start`` makes them."""
    fresh = copy.deepcopy(module)
    for name, mask in masks.items():
        parameter = fresh.get_parameter(name)
        vars(parameter).pop("_is_hf_initialized", None)  # or its class would leave it alone
        parameter[mask] = torch.nan
    if start is not None:
        start(fresh)
    found = {}
    for name, mask in masks.items():
        parameter = fresh.get_parameter(name)
        if not bool(parameter[mask].isfinite().all()):
            reason = f"nobody says how {name} of {type(module).__name__} starts, so it cannot be drawn anew"
            raise NotApplicableError(reason, hint="give watch(initialise=...), or take the null of permuted keys")
        found[name] = torch.where(mask, parameter, module.get_parameter(name))
    return found
