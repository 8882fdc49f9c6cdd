"""The encoder of the papers: pre-norm blocks, a pooled readout for labels, a per-position reconstruction head."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import choice_name
from attnprobe.errors import NotApplicableError
from attnprobe.models.config import TransformerConfig
from attnprobe.models.dropout import Dropout, attention_site
from attnprobe.models.embeddings import ClassToken, TokenEmbedding, ValueEmbedding
from attnprobe.models.heads import ReconstructionTarget, label_head, pool, reconstruction_head
from attnprobe.models.mixers import MIXERS, Mixer, MixerSettings, Site
from attnprobe.models.norms import make_norm, normed
from attnprobe.models.parts import Part
from attnprobe.models.positions import LearnedPositions, NoPositions, Rotary, SinusoidalPositions, take_positions
from attnprobe.models.score_profile import ScoreProfile
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Spec


class Transformer(Part):
    """Sequence in, features out; two heads read the features, so any checkpoint can be asked about either loss."""

    # "all" leaves out the label head, which always starts fresh (Amos et al. 2023); ["*"] means literally everything
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "all": ("embedding.*", "token.*", "positions.*", "blocks.*", "norm.*", "reconstruction_head.*"),
        "none": (),
        "embedding": ("embedding.*", "token.*"),
        "norms": ("norm.*",),
    }

    def __init__(self, config: TransformerConfig, spec: Spec, target: ReconstructionTarget) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.target: ReconstructionTarget = target
        d, length = config.d_model, spec.length + (config.readout == "token")
        self.embedding: nn.Module = (
            TokenEmbedding(spec, d) if spec.is_tokens else ValueEmbedding(spec, d, config.embedding_fan_in)
        )
        self.token = ClassToken(d) if config.readout == "token" else None
        self.positions: nn.Module = NoPositions()
        if config.positions == "learned":
            self.positions = LearnedPositions(length, d)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(length, d)
        rotary = Rotary(length, d // config.heads) if config.positions == "rotary" else None
        self.blocks = nn.ModuleList(Block(config, layer, length, rotary) for layer in range(config.layers))
        self.score_profile: ScoreProfile | None = None
        if config.score_profile is not None:
            space = ScoreSpace(
                layout=Layout(shape=spec.grid or (spec.length,), causal=config.causal), leading=length - spec.length
            )
            self.score_profile = ScoreProfile(config.layers, config.heads, space)
        self.norm = make_norm(config.norm, d) if config.norm_place == "before" else None
        self.label_head = label_head(spec, d, config.label_head)
        self.reconstruction_head = reconstruction_head(spec, target, d, config.reconstruction_head)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """While open, batch norms use their running averages."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    @property
    def mixer(self) -> MixerSettings:
        return self.config.mixer

    @property
    def has_scores(self) -> bool:
        """Whether its layers compute pre-softmax scores, which can be observed and offset."""
        return self.mixer.layer.has_scores

    def forward(
        self,
        inputs: Tensor,
        *,
        hidden: Tensor | None = None,
        valid: Tensor | None = None,
        score_offsets: Mapping[int, Tensor] | None = None,
        observe: Observer | None = None,
        at: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Features (batch, length, d_model) after the final norm; one more leading position with readout "token".

        inputs: token ids (batch, length) or stored values (batch, length, channels). hidden, valid: (batch, length)
        bool. score_offsets: layer -> tensor added to that layer's scores, beside the model's own fixed profile if it
        has one. observe: called once per layer with its AttentionCall, whose scores hold that profile. at: (batch, n)
        int64, the positions whose features are wanted instead of all; the last block then computes nothing else,
        unless its scores are offset or observed: those are always whole. dropout: the counters of a training batch;
        without them nothing is dropped. NotApplicableError if scores are to be observed or offset and the mixer has
        none.
        """
        if not self.has_scores and (score_offsets is not None or observe is not None):
            name = choice_name(MIXERS, self.mixer)
            hint = "what is measured on attention needs a model with model.mixer=attention"
            raise NotApplicableError(f"a model of mixer {name!r} has no attention scores", hint)
        x = self.embedding(inputs, hidden)
        if self.config.padding == "attended":
            valid = None
        if self.token is not None:
            x = self.token(x)
            valid = None if valid is None else F.pad(valid, (1, 0), value=True)
            at = None if at is None else F.pad(at + 1, (1, 0))
        x = self.positions(x)
        x = x if dropout is None else dropout.features(x, self.config.embedding_dropout, site=0)
        whole = score_offsets is not None or observe is not None or self.config.norm == "batch"
        early = None if whole else at
        fixed = None if self.score_profile is None else self.score_profile(x.shape[1])
        observe = observe if fixed is None or observe is None else _with_bias(observe, fixed)
        for layer, block in enumerate(self.blocks):
            offset = None if score_offsets is None else score_offsets.get(layer)
            if fixed is not None:
                offset = fixed[layer][None] if offset is None else fixed[layer] + offset
            last = layer == len(self.blocks) - 1
            x = block(x, valid, offset, observe, at=early if last else None, dropout=dropout)
        x = x if self.norm is None else normed(self.norm, x, valid)
        return x if at is None or early is not None else take_positions(x, at)

    def classify(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Label logits (batch, classes); of pairs, two neighbouring rows of features give one row of logits."""
        return self.label_head(pool(features, self.config.readout, valid))

    def reconstruct(self, features: Tensor) -> Tensor:
        """Values (batch, length, channels) in model units, or logits (batch, length, channels, levels | vocabulary)."""
        out = self.reconstruction_head(features[:, 1:] if self.token is not None else features)
        if self.target == "values":
            return out
        return out.unflatten(-1, (1 if self.spec.is_tokens else self.spec.channels, -1))


def _with_bias(observe: Observer, fixed: Tensor) -> Observer:
    """Tells an observer what the model itself adds to the scores: (layer, head, size, size)."""

    def told(call: AttentionCall) -> None:
        observe(dataclasses.replace(call, bias=fixed[call.layer]))

    return told


class Block(Part):
    """x + mixer(norm x), then x + mlp(norm x) if there is one; or norm (x + mixer x), norm (x + mlp x).

    The mixer bears its name in ``MIXERS``, and so do its parameters.
    """

    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mlp": ("up.*", "down.*"),
        "norms": ("norm1.*", "norm2.*"),
    }

    def __init__(self, config: TransformerConfig, layer: int, length: int, rotary: Rotary | None) -> None:
        super().__init__()
        self.norm_first = config.norm_place == "before"
        self.norm1 = make_norm(config.norm, config.d_model)
        self.mixer_name = choice_name(MIXERS, config.mixer)
        site = Site(
            layer=layer, d_model=config.d_model, length=length, heads=config.heads, causal=config.causal,
            dropout=config.attention_dropout, init=config.init, rotary=rotary,
        )  # fmt: skip
        self.add_module(self.mixer_name, config.mixer.make(site))
        self.site, self.rate = attention_site(layer), config.dropout
        self.has_mlp = config.d_mlp > 0
        self.activation = F.gelu if config.activation == "gelu" else F.silu
        if self.has_mlp:
            self.norm2 = make_norm(config.norm, config.d_model)
            self.up = nn.Linear(config.d_model, config.d_mlp)
            self.down = nn.Linear(config.d_mlp, config.d_model)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None,
        score_offset: Tensor | None,
        observe: Observer | None,
        *,
        at: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """All positions look and are looked at; with ``at`` (batch, n) only those look, and only theirs is returned."""
        added = self._mix(x, valid, score_offset, observe, at, dropout)
        x = x if at is None else take_positions(x, at)
        x = x + (added if dropout is None else dropout.features(added, self.rate, self.site + 1, at))
        x = x if self.norm_first else normed(self.norm1, x, valid)
        if not self.has_mlp:
            return x
        added = self.down(self.activation(self.up(normed(self.norm2, x, valid) if self.norm_first else x)))
        x = x + (added if dropout is None else dropout.features(added, self.rate, self.site + 2, at))
        return x if self.norm_first else normed(self.norm2, x, valid)

    def _mix(
        self, x: Tensor, valid: Tensor | None, score_offset: Tensor | None, observe: Observer | None,
        at: Tensor | None, dropout: Dropout | None,
    ) -> Tensor:  # fmt: skip
        """Ask the mixer for what it can do; the rest was refused before, or is done here."""
        h = normed(self.norm1, x, valid) if self.norm_first else x
        mixer: Mixer = getattr(self, self.mixer_name)
        asked: dict[str, Any] = {}
        if mixer.has_scores:
            asked |= {"score_offset": score_offset, "observe": observe}
        if "attention_dropout" in mixer.obeys:
            asked["dropout"] = dropout
        if mixer.gates:
            asked["residual"] = x
        if mixer.selects:
            return mixer(h, valid=valid, at=at, **asked)
        mixed = mixer(h, valid=valid, **asked)
        return mixed if at is None else take_positions(mixed, at)
