"""What a model takes from its backbone's source: what it is, its weights, and the names of its tokens."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.models.config import TransformerConfig
from attnprobe.models.hugging_face.encoder import HuggingFaceEncoder, prepared, settings_of
from attnprobe.models.hugging_face.loading import configuration, is_causal, load, read_config, read_tokenizer
from attnprobe.models.hugging_face.settings import PERMISSION, BackboneSettings, as_text
from attnprobe.models.hugging_face.tokens import ForeignTokens, named_rows


def described(model: TransformerConfig) -> TransformerConfig:
    """The settings with the architecture of the source, unless they have one, and with its causality.

    ConfigError if both are given, differ, and the source would not be used at all or for its weights.
    """
    settings = settings_of(model)
    if settings.architecture is not None:
        used = settings.weights == "pretrained" or not settings.named  # else for names of tokens alone
        if used and settings.source is not None and Path(settings.source).is_dir():
            _require_same(settings, read_config(settings.source, **_access(settings)))
        return model
    assert settings.source is not None
    config = read_config(settings.source, **_access(settings))
    text = as_text(config.to_dict())
    return dataclasses.replace(
        model, backbone=dataclasses.replace(settings, architecture=text), causal=is_causal(config)
    )


@torch.no_grad()
def install(model: HuggingFaceEncoder) -> list[str]:
    """Give a drawn model the weights and the rows of tokens that its settings ask for; returns what is to be told.

    ArtifactError if the source lacks them; ConfigError if it is no longer what the settings describe.
    """
    settings = settings_of(model.config)
    if settings.source is None:
        return []
    source, access = settings.source, _access(settings)
    told: list[str] = []
    tokenizer: Any = None
    if settings.named and isinstance(model.embedding, ForeignTokens):
        tokenizer = read_tokenizer(source, **access)
        told += _name_tokens(model.embedding, model, tokenizer, source)
    if settings.weights == "pretrained":
        _require_same(settings, read_config(source, **access))
        backbone, table, _ = prepared(load(source, **access))
        model.backbone.load_state_dict(backbone.state_dict())
        if isinstance(model.embedding, ForeignTokens):
            model.embedding.table.weight.copy_(table.weight)
            if tokenizer is not None and tokenizer.mask_token_id is not None:
                model.embedding.mask.copy_(table.weight[tokenizer.mask_token_id])
    return told


def _require_same(settings: BackboneSettings, there: Any) -> None:
    if as_text(configuration(settings.table).to_dict()) != as_text(there.to_dict()):
        message = f"model.backbone.architecture is not that of {settings.source}"
        raise ConfigError(
            message,
            hint="give one of both; the preset listops-pythia-small has an architecture, listops-pythia has none",
        )


def _name_tokens(embedding: ForeignTokens, model: HuggingFaceEncoder, tokenizer: Any, source: str) -> list[str]:
    rows, unknown = named_rows(model.spec, tokenizer, source)
    if max(rows) >= embedding.table.num_embeddings:
        message = f"the tokenizer of {source} names more tokens than the model has"
        raise ArtifactError(message, hint="does it belong to another model?")
    embedding.ids.rows.copy_(torch.tensor(rows))
    if not unknown:
        return []
    some = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    return [f"{len(unknown)} of {len(rows)} symbols are no single token of {source}, and unknown to it: {some}"]


def _access(settings: BackboneSettings) -> dict[str, Any]:
    return {"download": settings.download, "permission": PERMISSION}
