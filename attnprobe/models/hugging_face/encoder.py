"""Our model around a foreign encoder: our embedding of the data, its blocks, our two heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import require
from attnprobe.errors import NotApplicableError
from attnprobe.models.config import TransformerConfig
from attnprobe.models.dropout import Dropout
from attnprobe.models.embeddings import ClassToken, ValueEmbedding
from attnprobe.models.heads import ReconstructionTarget, label_head, reconstruction_head
from attnprobe.models.hugging_face import parameters
from attnprobe.models.hugging_face.loading import is_causal, undrawn_backbone
from attnprobe.models.hugging_face.projections import Elsewhere, take_apart
from attnprobe.models.hugging_face.settings import BackboneSettings
from attnprobe.models.hugging_face.tokens import ForeignTokens, has_tokens
from attnprobe.models.parts import NO_TWIN, Initial, Part, Update
from attnprobe.models.positions import take_positions
from attnprobe.models.transformer import Transformer
from attnprobe.scores.call import Observer
from attnprobe.tasks import Spec

OURS = ("embedding.*", "token.*")


class HuggingFaceEncoder(Transformer):
    """Sequence in, features out, by an encoder of transformers without its embedding of tokens and its own heads.

    It works in evaluation mode at all times: nothing in it drops anything, as Amos et al. 2023 have it.
    """

    def __init__(self, config: TransformerConfig, spec: Spec, target: ReconstructionTarget) -> None:
        Part.__init__(self)
        self.config, self.spec, self.target = config, spec, target
        self.backbone, table, self.place = prepared(undrawn_backbone(settings_of(config)))
        width, std = table.embedding_dim, getattr(self.backbone.config, "initializer_range", 0.02)
        self.embedding = (
            ForeignTokens(spec, table, std)
            if takes_tokens(config, spec)
            else ValueEmbedding(spec, width, config.embedding_fan_in)
        )
        self.token = ClassToken(width) if config.readout == "token" else None
        self.score_profile = None
        d = self.backbone.config.hidden_size
        self.label_head = label_head(spec, d, config.label_head)
        self.reconstruction_head = reconstruction_head(spec, target, d, config.reconstruction_head)
        self._check(spec.length + (self.token is not None))

    def _check(self, length: int) -> None:
        kind, causal = self.backbone.config.model_type, is_causal(self.backbone.config)
        message = f"must be {str(causal).lower()}: a {kind} sees {'nothing that' if causal else 'what'} follows"
        require(self.config.causal == causal, "model.causal", message)
        most = parameters.longest(self.backbone)
        message = f"has learned positions for {most}, the sequences have {length}"
        hint = "shorten the sequences, or choose a backbone that turns or biases its scores by position"
        require(most is None or length <= most, "model.backbone", message, hint)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        found = parameters.sets_by_name(self.backbone)
        own = {name: {f"backbone.{n}" for n in members} for name, members in found.items()}
        positions = own.pop("positions", set())
        own |= {f"{name}+positions": own[name] | positions for name in ("qk", "attention") if name in own}
        tables = {f"backbone.{n}" for n, _ in self.backbone.named_parameters() if "token_type" in n and "." in n}
        named = {name: tuple(sorted(members)) for name, members in own.items()}
        everything = (*OURS, "backbone.*", "reconstruction_head.*")
        return {"all": everything, "none": (), "embedding": (*OURS, *sorted(tables)), **named}

    def initial(self) -> Mapping[str, Initial]:
        """As the code of transformers draws them; whatever else a backbone keeps stays as it was made."""
        declared: dict[str, Initial] = {}
        for name, _ in self.backbone.named_parameters():
            owner, _, part = name.rpartition(".")
            place, leaf = parameters.place_of(self.backbone, name), self.backbone.get_submodule(owner)
            declared[f"backbone.{name}"] = parameters.drawing(self.backbone, place, leaf, part)
        kept = self.backbone.state_dict().keys() - dict(self.backbone.named_parameters()).keys()
        for name in kept:
            value = self.backbone.get_buffer(name).clone()
            declared[f"backbone.{name}"] = lambda tensor, _, value=value: tensor.copy_(value)
        if isinstance(self.embedding, ForeignTokens):
            table = self.embedding.table
            declared["embedding.table.weight"] = parameters.drawing(self.backbone, self.place, table, "weight")
        return declared

    def updates(self) -> Mapping[str, Update]:
        found = {f"backbone.{name}": update for name, update in parameters.updates(self.backbone).items()}
        return found | ({"embedding.table.weight": Update(decay="bias")} if self.takes_tokens else {})

    @property
    def takes_tokens(self) -> bool:
        return isinstance(self.embedding, ForeignTokens)

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module | None:
        raise NotApplicableError("a Hugging Face model does not say how", NO_TWIN)

    def train(self, mode: bool = True) -> "HuggingFaceEncoder":
        super().train(mode)
        self.backbone.eval()
        return self

    @property
    def has_scores(self) -> bool:
        """Its scores are its own: they can be neither offset nor observed from here."""
        return False

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
        """As ``Transformer.forward``; scores can be neither observed nor offset."""
        if score_offsets is not None or observe is not None:
            hint = "what is measured on attention needs a model without model.backbone"
            raise NotApplicableError("the attention scores of a Hugging Face backbone cannot be reached", hint)
        x = self.embedding(inputs, hidden)
        valid = None if self.config.padding == "attended" else valid
        if self.token is not None:
            x = self.token(x)
            valid = None if valid is None else F.pad(valid, (1, 0), value=True)
            at = None if at is None else F.pad(at + 1, (1, 0))
        x = x if dropout is None else dropout.features(x, self.config.embedding_dropout, site=0)
        x = self.backbone(inputs_embeds=x, attention_mask=None if valid is None else _mask(valid)).last_hidden_state
        return x if at is None else take_positions(x, at)


def settings_of(config: TransformerConfig) -> BackboneSettings:
    assert config.backbone is not None
    return config.backbone


def _mask(valid: Tensor) -> Tensor:
    """As transformers takes it; where there are no values that it could look at, in the shape it would make of it."""
    if valid.is_meta:
        return valid[:, None, None].expand(-1, 1, valid.shape[1], -1).contiguous()
    return valid.long()


def takes_tokens(config: TransformerConfig, spec: Spec) -> bool:
    wanted = settings_of(config).inputs
    possible = has_tokens(spec)
    require(possible or wanted != "tokens", "model.backbone.inputs", "cannot be 'tokens': this task has none")
    require(not spec.is_tokens or wanted != "values", "model.backbone.inputs", "cannot be 'values': these are tokens")
    return possible and wanted != "values"


def prepared(backbone: Any) -> tuple[Any, nn.Embedding, str]:
    """The backbone without its table of tokens, that table, and where it stood; fused projections are taken apart."""
    table = backbone.get_input_embeddings()
    place = next(name for name, module in backbone.named_modules() if module is table)
    backbone.set_submodule(place, Elsewhere())
    take_apart(backbone, backbone.config.num_attention_heads)
    backbone.config.use_cache = False
    return backbone.eval(), table, place
