"""A folder of Hugging Face with texts or images of a person: the subject of a probe."""

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from attnprobe.capture.hugging_face import image_losses, text_losses
from attnprobe.capture.hugging_face.images import Images, list_images, read_images
from attnprobe.capture.hugging_face.patches import Patches, PatchInputs
from attnprobe.capture.hugging_face.texts import read_texts
from attnprobe.capture.watching import ForeignLoss, watch
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
        """By a column, or by folders."""
        return self.label_column is not None if self.images is None else list_images(self.images)[1] is not None

    @property
    def access(self) -> dict[str, Any]:
        return {"download": self.download, "permission": PERMISSION}


def open_source(source: Source, device: torch.device, *, needs: Needs = "scores", seed: int = 0) -> Watched:
    """Model and data as a subject. seed: of what is hidden, and of fresh readouts.

    ArtifactError if something cannot be read, NotApplicableError if the model has not what is needed.
    """
    config = read_config(source.model, **source.access)
    head = head_of(config, source, needs)
    model = _loaded(source, head).to(device)
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


def _of_images(model: "PreTrainedModel", config: Any, source: Source, head: Head, needs: Needs, seed: int) -> Watched:
    assert source.images is not None
    images = read_images(source.images, source.reader or source.model, limit=source.limit, **source.access)
    patches = Patches.of(config, images.pixels)
    losses, labels = _image_losses(model, config, images, patches, source, head, needs, seed)
    given = {"pixel_values": images.pixels}
    if config.model_type == "vit_mae":  # else its encoder would see a random quarter, in random order
        model.config.mask_ratio = 0.0
        given["noise"] = torch.arange(patches.number).float().expand(len(images.pixels), -1)
    inputs = PatchInputs.of([given], valid=None, device=model.device, patches=patches)
    seeing = getattr(model, "vision_model", model)  # of models that see texts and images
    return Watched(
        seeing, inputs, grid=patches.grid, leading=None, only=source.only, losses=losses, initialise=None, labels=labels
    )


def _image_losses(
    model: "PreTrainedModel", config: Any, images: Images, patches: Patches, source: Source, head: Head, needs: Needs,
    seed: int,
) -> tuple[dict[str, ForeignLoss], np.ndarray | None]:  # fmt: skip
    """What the probe needs, and the labels of the images, which the model's own classifier numbers as it does."""
    labels, losses = images.labels, dict[str, ForeignLoss]()
    if needs == "both" or head == "classes":
        if labels is None:
            reason = f"this probe needs labels, and {source.images} has no folders of images, one for each class"
            raise ConfigError(reason, hint="expected IMAGES/CLASS/FILE, and two classes or more")
        if head == "classes":
            labels = image_losses.labels_of_model(labels, images.classes, config.label2id)
            return {"label": image_losses.own_classes(labels)}, labels
        losses["label"] = image_losses.fresh_readout(labels, patches, _width(config), seed)
    if needs != "scores":
        hidden = image_losses.hidden_patches(len(images.pixels), patches, seed)
        if head == "patches":
            image_losses.attach_last_states(model)
            losses["reconstruction"] = image_losses.masked_patches(hidden, patches)
        else:
            channels = images.pixels.shape[1]
            losses["reconstruction"] = image_losses.greyed_patches(hidden, patches, channels, _width(config), seed)
    return losses, labels


def _width(config: Any) -> int:
    return getattr(config, "vision_config", config).hidden_size


def _require_known(ids: torch.Tensor, config: Any, source: Source) -> None:
    """ArtifactError if the tokenizer numbers tokens that the model has no vector for; a GPU would not survive that."""
    known = getattr(config, "vocab_size", None)
    if known is not None and int(ids.max()) >= known:
        reason = f"the tokenizer of {source.reader or source.model} made the token {int(ids.max())}"
        hint = "tokenizer and model must belong together: save both into one folder"
        raise ArtifactError(f"{reason}, and the model {source.model} knows 0 to {known - 1}", hint=hint)


def _of_texts(model: "nn.Module", config: Any, source: Source, head: Head, needs: Needs, seed: int) -> Watched:
    assert source.text is not None
    tokenizer = read_tokenizer(source.reader or source.model, **source.access)
    most = min(tokenizer.model_max_length, positions_of(model, config))
    length = source.max_length or min(USUAL_LENGTH, most)
    if length > most:
        raise ConfigError(f"--max-length {length} is more than this model's {most} positions", hint="lower it")
    texts = read_texts(
        source.text, tokenizer, max_length=length, limit=source.limit,
        text_column=source.text_column, label_column=source.label_column,
    )  # fmt: skip
    _require_known(texts.ids, config, source)
    losses = {}
    if needs != "scores":
        if head == "masked" and tokenizer.mask_token_id is None:
            raise NotApplicableError("this tokenizer has no mask token", hint="save it with the model's own tokenizer")
        losses["reconstruction"] = (
            text_losses.next_token(texts)
            if head == "causal"
            else text_losses.masked_token(texts, int(tokenizer.mask_token_id), seed)  # pyright: ignore[reportArgumentType]
        )
    if needs == "both":
        if texts.labels is None:
            raise ConfigError("this probe needs labels", hint="give a table and --label-column NAME")
        losses["label"] = text_losses.fresh_readout(texts, config.hidden_size, seed)
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # pyright: ignore[reportCallIssue]
    model = getattr(model, "text_model", model)  # of models that see texts and images
    more = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    batch = {"input_ids": texts.ids, "attention_mask": texts.seen.long()} | more
    return watch(
        model, [batch], leading=texts.leading, valid=texts.own, only=source.only, labels=texts.labels, losses=losses
    )


def positions_of(model: "nn.Module", config: Any) -> int:
    """How many positions a model has. RoBERTa and its kin count theirs from behind the number of the padding token."""
    declared = getattr(config, "max_position_embeddings", None) or 10**9
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = [number for table in tables if (number := getattr(table, "padding_idx", None)) is not None]
    return declared - max((1 + number for number in padding), default=0)


def head_of(config: Any, source: Source, needs: Needs) -> Head:
    """Which head is wanted of those that the weights have, by the name of the class that saved them.

    NotApplicableError if there is none that could tell what is asked.
    """
    names = config.architectures or []
    if source.images is not None and any("ForMaskedImageModeling" in name for name in names):
        return "patches"  # its mask token has no place in a model without that head
    if needs == "scores":
        return "none"
    if source.images is not None:
        if needs == "both":
            return "none"
        if any("ForImageClassification" in name for name in names):
            return "classes"
    elif any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal"
    elif any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names):
        return "masked"
    named = ", ".join(names or ["no architecture"])
    reason = "has no language-model head, so it reconstructs nothing"
    if source.images is not None:
        reason = "has neither a classifier nor a head for patches that it saw hidden, so it has no loss of its own"
    raise NotApplicableError(f"hf:{source.model} ({named}) {reason}", hint="take a model with a head, or another probe")
