"""What a mixer is: the part of a block that lets positions exchange information, with everything it must declare.

A mixer is written as two classes, its settings and its layer, and added by its entry in ``MIXERS``. What it does not
declare is refused where it is asked for, never ignored.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from attnprobe.errors import NotApplicableError
from attnprobe.models.parts import NO_TWIN, Part
from attnprobe.models.positions import Rotary

# Settings of a model that only its mixer can carry out.
Obeyed = Literal["causal", "heads", "rotary", "attention_dropout", "init"]
Init = Literal["independent", "tied", "proximity", "shuffled"]  # how W_Q and W_K start, see ``TransformerConfig``


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Where a mixer stands, and what the model's settings ask of it; only what it ``obeys`` is ever asked."""

    layer: int  # 0, 1, ...
    d_model: int
    length: int  # of the longest sequence, its class token included
    heads: int
    causal: bool
    dropout: float  # of attention weights
    init: Init  # of queries and keys
    rotary: Rotary | None


class Mixer(Part):
    """(x, valid) -> x, and what can be asked of it beyond that."""

    obeys: ClassVar[frozenset[Obeyed]] = frozenset()  # a model that asks for another of these is refused
    has_scores: ClassVar[bool] = False  # pre-softmax scores, which can be observed and offset
    masks: ClassVar[bool] = False  # gives the attention kernel a mask even where nothing is padding
    gates: ClassVar[bool] = False  # what it returns depends on what that is added to, its argument ``residual``
    selects: ClassVar[bool] = False  # computes only the positions ``at``; of others the block takes these afterwards

    def __init__(self, site: Site, settings: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """(batch, length, d_model) -> the same; ``valid`` (batch, length) bool is False where x is padding, which no
        valid position may depend on.

        One that has scores also takes ``score_offset`` and ``observe``, one that selects ``at``, one that obeys
        attention_dropout ``dropout``: see ``Attention``; one that gates ``residual`` (batch, length, d_model).
        """
        raise NotImplementedError

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module | None:
        """As of any part, but to be declared even if all parameters are of its parts: they may not be called alone."""
        raise NotApplicableError(f"mixer {cls.__name__} does not say how", NO_TWIN)

    @classmethod
    def can_be_stacked(cls) -> bool:
        """Whether it declares how, so that several models can be trained as one."""
        return cls.stack.__func__ is not Mixer.stack.__func__


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerSettings:
    """What a person chooses of a mixer, as fields; the docstring says what it is."""

    layer: ClassVar[type[Mixer]]

    def check(self, d_model: int) -> None:
        """ConfigError, which names the field as mixer.<field>, if these do not fit the width of a model."""

    def squares(self, length: int) -> tuple[int, int]:
        """How many squares (queries, keys) of which side its attention to a sequence is as much work as: what kernels
        of attention are tried on.
        """
        return 1, length

    def make(self, site: Site) -> Mixer:
        return self.layer(site, self)
