"""What a part of a model declares about its parameters: how they start, are updated, are named and are stacked.

Nothing is guessed: a parameter that nobody declares is an error, not a draw from torch's global seed. Names are
relative to the part and may reach into its own parts ("linear.weight"); what is declared further out has the last word.
"""

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

Fill = Callable[[Tensor, torch.Generator], object]  # sets a tensor in place, drawing from the generator alone


@dataclasses.dataclass(frozen=True)
class Derived:
    """A start that needs what other parameters of the same part start with."""

    names: tuple[str, ...]  # none of them is derived itself
    fill: Callable[..., object]  # sets a tensor in place from (tensor, generator, *the others)

    def of(self, others: Sequence[Tensor]) -> Fill:
        return lambda tensor, generator: self.fill(tensor, generator, *others)


Initial = Fill | Derived | str  # a text: the parameter starts as a copy of that other one of the same part
Declared = TypeVar("Declared")

NO_TWIN = "train them side by side: leave out --together; or write the twin in the part's stack()"


def uniform(bound: float) -> Fill:
    """In +-bound."""
    return lambda tensor, generator: tensor.uniform_(-bound, bound, generator=generator)


def normal(std: float = 1.0) -> Fill:
    """With mean 0."""
    return lambda tensor, generator: tensor.normal_(std=std, generator=generator)


def constant(value: float | Tensor) -> Fill:
    """A number, or a tensor of the parameter's shape."""
    return lambda tensor, generator: tensor.copy_(torch.as_tensor(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """How the optimizer treats a parameter, where its settings and the parameter's shape do not say so."""

    lr: float | None = None  # its learning rate after the warm-up, on the schedule of the settings; None: theirs
    # matrix: it decays; bias: only if optimizer.decay is "all"; never: whatever is set; None: by its number of axes
    decay: Literal["matrix", "bias", "never"] | None = None


class Part(nn.Module):
    """A module that says what is to be known of its parameters and of its persistent buffers."""

    # what ``transfer`` and ``freeze`` may name: a set's name -> patterns over names of parameters
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """``parameter_sets``, where they are the same for all of its kind."""
        return self.parameter_sets

    def initial(self) -> Mapping[str, Initial]:
        """How each of its parameters and persistent buffers starts; torch's layers below it have said so already."""
        return {}

    def updates(self) -> Mapping[str, Update]:
        """Of those parameters that the optimizer treats in a way of their own."""
        return {}

    def carried(self, source: nn.Module, names: Collection[str]) -> None:
        """Told that its own parameters ``names`` were copied from ``source``, its counterpart in another model, to set
        right those that mean something else here, as at another length.
        """

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module | None:
        """A twin of ``layers`` (one of each member) that acts on (members * batch, ...), member after member.

        Its parameters have the names of theirs and one more leading axis, of members. None: each of its parts is
        stacked, and the rest does the same for every sequence; a part with parameters of its own cannot say so.
        NotApplicableError if it cannot be stacked.
        """
        return None


def stacked(parameters: Sequence[Tensor]) -> nn.Parameter:
    """One parameter with a leading axis of members, for twins."""
    return nn.Parameter(torch.stack([p.detach() for p in parameters]), requires_grad=parameters[0].requires_grad)


def twin(layers: Sequence[Any]) -> nn.Module:
    """A copy of the first one whose parameters, all its own, are those of ``layers`` with a leading axis of members."""
    made = copy.deepcopy(layers[0])
    for name, _ in layers[0].named_parameters():
        setattr(made, name, stacked([layer.get_parameter(name) for layer in layers]))
    return made


def below(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def gather(model: nn.Module, declared: Callable[[nn.Module, str], Mapping[str, Declared]]) -> dict[str, Declared]:
    """Full name -> what the outermost part declares of it. declared: (part, its full name) -> full names."""
    found: dict[str, Declared] = {}
    for prefix, module in model.named_modules():  # outer parts come first
        for name, value in declared(module, prefix).items():
            found.setdefault(name, value)
    return found
