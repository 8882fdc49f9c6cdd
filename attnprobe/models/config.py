"""The shape of a model: what a person chooses of the encoder and its two heads."""

import dataclasses
from pathlib import Path
from typing import Literal

from attnprobe.config import choice_name, require, require_positive
from attnprobe.models.embeddings import FanIn
from attnprobe.models.heads import Readout
from attnprobe.models.hugging_face.settings import MOST_LAYERS, BackboneSettings
from attnprobe.models.mixers import MIXERS, AttentionSettings, MixerSettings
from attnprobe.models.mixers.contract import Init
from attnprobe.models.norms import Norm
from attnprobe.models.parts import Part

BLOCK_PARTS = ("norm1", "norm2", "up", "down", "activation")  # what a mixer's name must not be
OF_OUR_BLOCKS = (  # which a backbone replaces
    "d_model", "layers", "mixer", "heads", "d_mlp", "positions", "norm", "norm_place", "activation", "init", "dropout",
    "attention_dropout", "score_profile",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of the encoder and its two heads, and how its parameters start."""

    d_model: int = 64  # width of the features
    layers: int = 1  # blocks, each of a mixer and an MLP
    # how positions exchange information: the mixer's name, and its own settings if it has some
    mixer: MixerSettings = dataclasses.field(default=AttentionSettings(), metadata={"choices": MIXERS})
    heads: int = 4  # attention heads of each layer; they share d_model
    d_mlp: int = 128  # hidden width of the MLPs; 0: blocks without MLP, as those of state-space models are
    # how a position is told: a learned or a fixed sinusoidal table that is added, or rotation of queries and keys
    positions: Literal["none", "learned", "sinusoidal", "rotary"] = "sinusoidal"
    readout: Readout = "mean"  # what labels are read from: mean, maximum or last of the positions, or a class token
    label_head: Literal["linear", "mlp"] = "linear"  # pairs of sequences always have their own head
    # identity: the features of a position are the logits of its token, as the published code does on Text and Retrieval
    reconstruction_head: Literal["linear", "identity"] = "linear"
    activation: Literal["gelu", "silu"] = "gelu"  # between the two layers of an MLP
    # layer: mean 0 and variance 1 within every position; scale: mean square 1 there, with one gain; batch: over all of
    # a training batch, what follows in a causal one too
    norm: Norm = "layer"
    # before every mixer and every MLP and once at the end, or after the output of each was added
    norm_place: Literal["before", "after"] = "before"
    causal: bool = False  # a position sees only itself and those before it
    padding: Literal["masked", "attended"] = "masked"  # attended: pads are keys like any other, as published
    # how queries and keys start: drawn apart; tied: W_Q = W_K = W_V = W_O, as published; proximity: W_Q = W_K = 1, so
    # that what sinusoidal or rotary positions add to scores is a kernel of the distance; shuffled: the same with the
    # rows of W_K in random order, which keeps the norms and leaves no kernel
    init: Init = "independent"
    # what bounds the start of the embedding of values: all its inputs, or all but the mask channel, as published code
    # without masks has it (one channel: +-1 instead of +-0.71)
    embedding_fan_in: FanIn = "with_mask"
    # of the output of every mixer and every MLP, before it is added (Vaswani et al. 2017, 5.4)
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of attention weights; they then take length x length memory while training
    embedding_dropout: float = 0.0  # of embeddings with their positions (Vaswani et al. 2017, 5.4)
    # a checkpoint whose offset profile (of every head the mean row-centred score at each offset, on its own training
    # data) is added to this model's scores: fixed, in training and ever after
    score_profile: Path | None = None
    score_profile_dose: float = 1.0  # what that profile is multiplied with
    # a control: the profile's values are permuted over the offsets with this seed, and keep their norm
    score_profile_shuffle: int | None = None
    backbone: BackboneSettings | None = None  # a model of Hugging Face in the place of the blocks and their positions

    def __post_init__(self) -> None:
        require_positive(self, "d_model", "layers", "heads")
        few = self.layers <= MOST_LAYERS
        require(few, "layers", f"must be at most {MOST_LAYERS:,}: more take hours to build, got {self.layers:,}")
        require(self.d_mlp >= 0, "d_mlp", f"must not be negative, got {self.d_mlp}")
        self._check_mixer()
        fits = self.d_model % self.heads == 0 or "heads" not in self.mixer.layer.obeys
        require(fits, "d_model", f"must be divisible by heads, got {self.d_model} and {self.heads} heads")
        even = self.positions != "rotary" or (self.d_model // self.heads) % 2 == 0
        message = f"rotary needs an even number of channels per head, not {self.d_model} / {self.heads}"
        require(even, "positions", message, "change model.d_model or model.heads, or take other positions")
        sees_nothing = self.readout == "token" and self.causal
        require(not sees_nothing, "readout", "token cannot be causal: the class token stands first")
        for name in ("dropout", "attention_dropout", "embedding_dropout"):
            rate = getattr(self, name)
            require(0 <= rate < 1, name, f"must be a share below 1, got {rate}")
        self._check_score_profile()
        self._check_backbone()

    def _check_score_profile(self) -> None:
        shuffle, given = self.score_profile_shuffle, self.score_profile is not None
        require(shuffle is None or given, "score_profile_shuffle", "needs a model.score_profile to shuffle")
        require(self.score_profile_dose == 1 or given, "score_profile_dose", "needs a model.score_profile to multiply")
        require(shuffle is None or shuffle >= 0, "score_profile_shuffle", f"must not be negative, got {shuffle}")
        has_scores = not given or self.mixer.layer.has_scores
        require(has_scores, "score_profile", "is added to scores, which this mixer has not", "choose mixer attention")

    @property
    def has_scores(self) -> bool:
        """Whether its layers compute pre-softmax scores that can be observed and offset."""
        return self.backbone is None and self.mixer.layer.has_scores

    def _check_backbone(self) -> None:
        """What shapes our own blocks has no say in those of a backbone."""
        for field in dataclasses.fields(self) if self.backbone is not None else ():
            alone = field.name in OF_OUR_BLOCKS and getattr(self, field.name) != field.default
            require(not alone, field.name, "is a setting of our own blocks, and model.backbone brings others")

    def _check_mixer(self) -> None:
        """What only a mixer can carry out is refused if this one cannot."""
        name, obeys = choice_name(MIXERS, self.mixer), self.mixer.layer.obeys
        usable = name.isidentifier() and not hasattr(Part, name) and name not in BLOCK_PARTS
        require(usable, "mixer", f"{name!r} cannot be the name of a block's part")
        hint = f"model.mixer={name} cannot do that; leave the setting away or choose another mixer"
        require(not self.causal or "causal" in obeys, "causal", f"is impossible with mixer {name!r}", hint)
        rotates = self.positions != "rotary" or "rotary" in obeys
        require(rotates, "positions", f"rotary turns queries and keys, which mixer {name!r} has not", hint)
        drops = self.attention_dropout == 0 or "attention_dropout" in obeys
        require(drops, "attention_dropout", f"drops attention weights, which mixer {name!r} has not", hint)
        ties = self.init == "independent" or "init" in obeys
        require(ties, "init", f"{self.init} sets W_Q, which mixer {name!r} has not", hint)
        self.mixer.check(self.d_model)
