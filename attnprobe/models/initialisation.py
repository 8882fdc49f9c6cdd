"""Every parameter's distribution at the start, drawn from a generator of its own.

A parameter depends on (seed, its name) alone: models that share a name and a shape share the value, whatever else
differs between them. That makes arms of a study comparable pair by pair.
"""

import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from attnprobe import machine
from attnprobe.errors import RunError
from attnprobe.models.config import TransformerConfig
from attnprobe.models.heads import ReconstructionTarget
from attnprobe.models.parts import Derived, Fill, Initial, below, gather
from attnprobe.models.torch_layers import initial_of
from attnprobe.models.transformer import Transformer
from attnprobe.tasks import Spec

GIBIBYTE = 2**30


def make_model(config: TransformerConfig, spec: Spec, target: ReconstructionTarget, *, seed: int) -> Transformer:
    """Build a model on the CPU and initialise it; RunError if this machine could never hold it."""
    model = unfilled(config, spec, target)
    initialise(model, seed)
    return model


def unfilled(config: TransformerConfig, spec: Spec, target: ReconstructionTarget) -> Transformer:
    """``undrawn`` on the CPU, for parameters that come from elsewhere; RunError if this machine could never hold it."""
    check_size(config, spec, target)
    with torch.random.fork_rng(devices=[]):  # torch's own draws leave the global seed alone
        return undrawn(config, spec, target)


def undrawn(config: TransformerConfig, spec: Spec, target: ReconstructionTarget) -> Transformer:
    """The model with parameters that mean nothing yet; on the meta device, those have shapes only."""
    if config.backbone is None:
        return Transformer(config, spec, target)
    from attnprobe.models.hugging_face.encoder import HuggingFaceEncoder  # which imports transformers, for seconds

    return HuggingFaceEncoder(config, spec, target)


def check_size(config: TransformerConfig, spec: Spec, target: ReconstructionTarget) -> None:
    """Refuse what would not fail but be killed: systems promise more memory than they have."""
    try:
        with torch.device("meta"):  # shapes without memory
            short = undrawn(dataclasses.replace(config, layers=min(config.layers, 2)), spec, target)
        last, more = (short, 0) if config.backbone else (short.blocks[-1], config.layers - len(short.blocks))
        held = [sum(t.numel() for t in part.state_dict().values()) for part in (short, last)]
        weights = held[0] + more * held[1]
    except RuntimeError:  # not even the number of weights fits an integer
        weights = math.inf
    needed, there = 4 * weights / GIBIBYTE, machine.memory() / GIBIBYTE
    if needed > there:
        message = f"not enough memory: the model's weights alone take {needed:,.0f} GiB, this machine has {there:,.0f}"
        raise RunError(message, hint="choose a smaller model.d_model, model.d_mlp, model.layers or sizes of the mixer")


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter and persistent buffer as the parts of the model declare it.

    | parameter                        | distribution                                              |
    |----------------------------------|-----------------------------------------------------------|
    | weight and bias of linear layers | uniform in +-1/sqrt(fan in), torch's default              |
    | token embedding, class token     | normal, standard deviation 1                              |
    | learned positions                | normal, standard deviation 0.02                           |
    | layer, scale and batch norms     | gain 1, shift 0; running mean 0, running variance 1       |
    | the linear embedding of values,  | uniform in +-1/sqrt(channels): the mask channel is not    |
    | if without_mask is asked for     | counted                                                   |
    | k, v, o when ``init`` is "tied"  | copies of q (the published code clones one linear layer)  |
    | q, k if "proximity", "shuffled"  | the identity, k's rows in random order if shuffled; bias 0 |
    | what else a mixer has            | what it says in ``initial``                               |

    RunError if one is not declared, or a declaration does not set it from its generator alone.
    """
    declared, state = gather(model, _initial), model.state_dict()
    for name in sorted(state.keys() ^ declared.keys()):
        owner = type(model.get_submodule(name.rpartition(".")[0])).__name__ if name in state else ""
        message = f"nothing says how {name} of {owner} starts" if owner else f"{name} is declared but no parameter"
        raise RunError(message, hint="what initial() of a part names must be its parameters and persistent buffers")
    for name, initial in declared.items():
        if callable(initial):
            _fill(name, state[name], initial, generator_for(seed, name))
    for name, initial in declared.items():
        if isinstance(initial, str):
            state[name].copy_(state[initial])
        elif isinstance(initial, Derived):
            _fill(name, state[name], _resolved(initial, state), generator_for(seed, name))


@torch.no_grad()
def redraw(model: nn.Module, names: Collection[str], seed: int) -> None:
    """Set some parameters anew, each from its declared distribution, independent of what ``initialise`` ever draws.

    One that starts as a copy is a copy again: of the new draw, if what it copies is among ``names``.
    """
    declared, state = gather(model, _initial), model.state_dict()
    for name in names:
        initial = declared[name]
        if not isinstance(initial, str):
            drawn = torch.empty(state[name].shape)  # in float32 on the CPU, so that it is the same on every device
            _fill(name, drawn, _resolved(initial, state), generator_for(seed, f"redrawn {name}"))
            state[name].copy_(drawn)
    for name in names:
        initial = declared[name]
        if isinstance(initial, str):
            state[name].copy_(state[initial])


def _initial(module: nn.Module, prefix: str) -> dict[str, Initial]:
    """As ``initial_of`` with full names."""

    def full(initial: Initial) -> Initial:
        if isinstance(initial, Derived):
            return dataclasses.replace(initial, names=tuple(below(prefix, name) for name in initial.names))
        return below(prefix, initial) if isinstance(initial, str) else initial

    return {below(prefix, name): full(initial) for name, initial in initial_of(module).items()}


def _resolved(initial: Fill | Derived, state: Mapping[str, Tensor]) -> Fill:
    """A start that needs no others, once these are there."""
    return initial.of([state[other] for other in initial.names]) if isinstance(initial, Derived) else initial


def _fill(name: str, tensor: Tensor, fill: Fill, generator: torch.Generator) -> None:
    before = torch.random.get_rng_state()
    if tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(torch.nan)  # whatever the constructor drew
    fill(tensor, generator)
    hint = "initial() must fill the tensor it is given, with the generator it is given"
    if tensor.isnan().any():
        raise RunError(f"the declared start of {name} does not set all of it", hint)
    if not torch.equal(before, torch.random.get_rng_state()):
        raise RunError(f"the declared start of {name} draws from torch's global seed", hint)


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator whose stream belongs to (seed, name)."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def state_on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of all parameters, safe to keep while training goes on."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
