"""A folder of Hugging Face with texts or images of a person: the subject of a probe."""

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from attnprobe.capture.hugging_face.images import grid_of, read_images
from attnprobe.capture.hugging_face.losses import fresh_readout, masked_token, next_token
from attnprobe.capture.hugging_face.texts import read_texts
from attnprobe.capture.watching import watch
from attnprobe.capture.watching.watched import Watched
from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError, NotApplicableError, lacks_memory
from attnprobe.models.hugging_face.loading import Head, load, read_config, read_tokenizer

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# pyright: reportMissingImports=false

PERMISSION = "--allow-download"
USUAL_LENGTH = 128  # positions of a block of text, unless one was named

Needs = Literal["scores", "reconstruction", "both"]  # what a probe asks of a model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A model and what it is run on."""

    model: str  # a folder, or the id of a model on the hub, perhaps with @REVISION
    reader: str | None = None  # where tokenizer and image processor are, if not with the model
    text: Path | None = None
    images: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    limit: int | None = None  # most sequences that are read
    max_length: int | None = None  # positions of a text
    batch_size: int | None = None  # most sequences in a pass
    only: str = "*"  # modules whose attention counts
    download: bool = False

    def __post_init__(self) -> None:
        if (self.text is None) == (self.images is None):
            hint = "give either --text FILE (plain text, or a table) or --images FOLDER"
            raise ConfigError(f"hf:{self.model} needs something to be run on", hint=hint)

    @property
    def gives_labels(self) -> bool:
        return self.label_column is not None

    @property
    def access(self) -> dict[str, Any]:
        return {"download": self.download, "permission": PERMISSION}


def open_source(source: Source, device: torch.device, *, needs: Needs = "scores", seed: int = 0) -> Watched:
    """Model and data as a subject. seed: of the tokens that are hidden, and of the fresh readout.

    ArtifactError if something cannot be read, NotApplicableError if the model has not what is needed.
    """
    config = read_config(source.model, **source.access)
    head = head_of(config) if source.images is None else "none"
    if needs != "scores" and head == "none":
        named = ", ".join(config.architectures or ["no architecture"])
        reason = f"hf:{source.model} ({named}) has no language-model head, so it reconstructs nothing"
        raise NotApplicableError(reason, hint="take a model with such a head, or another probe")
    model = _loaded(source, "none" if needs == "scores" else head).to(device)
    try:
        make = _of_texts if source.images is None else _of_images
        subject = make(model, config, source, head, needs, seed)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        if isinstance(error, AttnprobeError) or lacks_memory(error):
            raise
        reason = f"{type(model).__name__} cannot be run on these inputs: {type(error).__name__}: {error}"
        raise NotApplicableError(reason, hint="is it a model of texts, or of images?") from error
    subject.at_once = source.batch_size
    return subject


def _loaded(source: Source, head: Head) -> "PreTrainedModel":
    """With the fused kernel, or the eager one where transformers has no other."""
    try:
        return load(source.model, head=head, **source.access)
    except ArtifactError as error:
        if "does not support an attention implementation" not in str(error):
            raise
    return load(source.model, head=head, attention="eager", **source.access)


def _of_images(model: "nn.Module", config: Any, source: Source, head: Head, needs: Needs, seed: int) -> Watched:
    assert source.images is not None
    images = read_images(source.images, source.reader or source.model, limit=source.limit, **source.access)
    model = getattr(model, "vision_model", model)  # of models that see texts and images
    grid = grid_of(config, images.pixels)
    return watch(model, [{"pixel_values": images.pixels}], grid=grid, only=source.only, labels=images.labels)


def _of_texts(model: "nn.Module", config: Any, source: Source, head: Head, needs: Needs, seed: int) -> Watched:
    assert source.text is not None
    tokenizer = read_tokenizer(source.reader or source.model, **source.access)
    most = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 10**9)
    length = source.max_length or min(USUAL_LENGTH, most)
    if length > most:
        raise ConfigError(f"--max-length {length} is more than this model's {most} positions", hint="lower it")
    texts = read_texts(
        source.text, tokenizer, max_length=length, limit=source.limit,
        text_column=source.text_column, label_column=source.label_column,
    )  # fmt: skip
    losses = {}
    if needs != "scores":
        if head == "masked" and tokenizer.mask_token_id is None:
            raise NotApplicableError("this tokenizer has no mask token", hint="save it with the model's own tokenizer")
        losses["reconstruction"] = (
            next_token(texts) if head == "causal" else masked_token(texts, int(tokenizer.mask_token_id), seed)  # pyright: ignore[reportArgumentType]
        )
    if needs == "both":
        if texts.labels is None:
            raise ConfigError("this probe needs labels", hint="give a table and --label-column NAME")
        losses["label"] = fresh_readout(texts, config.hidden_size, seed)
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # pyright: ignore[reportCallIssue]
    model = getattr(model, "text_model", model)  # of models that see texts and images
    more = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    batch = {"input_ids": texts.ids, "attention_mask": texts.seen.long()} | more
    return watch(
        model, [batch], leading=texts.leading, valid=texts.own, only=source.only, labels=texts.labels, losses=losses
    )


def head_of(config: Any) -> Head:
    """Which language-model head the weights have, by the name of the class that saved them."""
    names = config.architectures or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal"
    return "masked" if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names) else "none"
