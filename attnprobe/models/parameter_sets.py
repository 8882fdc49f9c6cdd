"""Named sets of parameters for ``transfer`` and ``freeze``, as the parts of a model declare them."""

import fnmatch
from collections.abc import Iterable

from torch import nn

from attnprobe.models.mixers import MIXERS
from attnprobe.models.parts import Part, below
from attnprobe.models.transformer import Block, Transformer

WITH_POSITIONS = "+positions"  # every set of a mixer has a larger one, with the table of positions


def known_sets() -> set[str]:
    """The names of all sets that some model has."""
    mixers = {name for settings in MIXERS.values() for name in settings.layer.parameter_sets}
    return {*Transformer.parameter_sets, *Block.parameter_sets, *mixers, *(name + WITH_POSITIONS for name in mixers)}


def sets_of(model: nn.Module) -> dict[str, set[str]]:
    """Name -> names of parameters; without the sets of which the model has no parameter, except "none"."""
    found: dict[str, set[str]] = {}
    for prefix, module in model.named_modules():
        own = {name: below(prefix, name) for name, _ in module.named_parameters()}
        for name, patterns in module.sets().items() if isinstance(module, Part) else ():
            found.setdefault(name, set()).update(own[n] for n in matching(own, patterns))
    positions = matching((name for name, _ in model.named_parameters()), ("positions.*",))
    if isinstance(model, Transformer) and model.config.backbone is None:  # one says so itself
        for name in model.mixer.layer.parameter_sets:
            found[name + WITH_POSITIONS] = found[name] | positions
    return {name: members for name, members in found.items() if members or name == "none"}


def matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    names = list(names)
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
