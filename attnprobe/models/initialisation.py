"""Every parameter's distribution at the start, drawn from a generator of its own.

A parameter depends on (seed, its name) alone: models that share a name and a shape share the value, whatever else
differs between them. That makes arms of a study comparable pair by pair.
"""

import hashlib
import math

import torch
from torch import Tensor, nn

from attnprobe import machine
from attnprobe.errors import RunError
from attnprobe.models.attention import Attention
from attnprobe.models.embeddings import ClassToken, ValueEmbedding
from attnprobe.models.heads import ReconstructionTarget
from attnprobe.models.positions import LearnedPositions
from attnprobe.models.transformer import Transformer, TransformerConfig
from attnprobe.tasks import Spec

GIBIBYTE = 2**30


def make_model(config: TransformerConfig, spec: Spec, target: ReconstructionTarget, *, seed: int) -> Transformer:
    """Build a model on the CPU and initialise it; RunError if this machine could never hold it."""
    check_size(config)
    with torch.random.fork_rng(devices=[]):  # torch's own draws, overwritten below, leave the global seed alone
        model = Transformer(config, spec, target)
    initialise(model, seed)
    return model


def check_size(config: TransformerConfig) -> None:
    """Refuse what would not fail but be killed: systems promise more memory than they have."""
    weights = config.layers * config.d_model * (4 * config.d_model + 2 * config.d_mlp)
    needed, there = 4 * weights / GIBIBYTE, machine.memory() / GIBIBYTE
    if needed > there:
        message = f"not enough memory: the model's weights alone take {needed:,.0f} GiB, this machine has {there:,.0f}"
        raise RunError(message, hint="choose a smaller model.d_model, model.d_mlp or model.layers")


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Set every parameter.

    | parameter                        | distribution                                              |
    |----------------------------------|-----------------------------------------------------------|
    | weight and bias of linear layers | uniform in +-1/sqrt(fan in), torch's default              |
    | token embedding, class token     | normal, standard deviation 1                              |
    | learned positions                | normal, standard deviation 0.02                           |
    | layer norms                      | gain 1, shift 0                                           |
    | the linear embedding of values,  | uniform in +-1/sqrt(channels): the mask channel is not   |
    | if without_mask is asked for     | counted                                                  |
    | k, v, o when ``init`` is "tied"  | copies of q (the published code clones one linear layer)  |
    """
    without_mask = isinstance(model.embedding, ValueEmbedding) and model.config.embedding_fan_in == "without_mask"
    unmasked = "embedding.linear" if without_mask else None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_in = module.in_features - (name == unmasked)
            bound = 1 / math.sqrt(fan_in)
            for part in ("weight", "bias"):
                parameter = getattr(module, part)
                parameter.uniform_(-bound, bound, generator=generator_for(seed, f"{name}.{part}"))
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator_for(seed, f"{name}.weight"))
        elif isinstance(module, ClassToken):
            module.vector.normal_(generator=generator_for(seed, f"{name}.vector"))
        elif isinstance(module, LearnedPositions):
            module.table.normal_(std=0.02, generator=generator_for(seed, f"{name}.table"))
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if model.config.init == "tied":
        for module in model.modules():
            if isinstance(module, Attention):
                for copy in (module.k, module.v, module.o):
                    copy.load_state_dict(module.q.state_dict())


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator whose stream belongs to (seed, name)."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def state_on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of all parameters, safe to keep while training goes on."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
