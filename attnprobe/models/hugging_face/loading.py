"""Configuration, weights and tokenizer of a Hugging Face folder or hub id, and nothing that could run code.

Weights are read from safetensors only, code that comes with a model is never run, and nothing is downloaded unless the
caller was asked for it. Everything that goes wrong is one line.
"""

import contextlib
import inspect
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError
from attnprobe.files import reading
from attnprobe.models.hugging_face.settings import MOST_LAYERS, PASSING, BackboneSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# pyright: reportMissingImports=false, reportMissingTypeStubs=false

# Features alone, or with a head on top: of a language model, or of one of images, for their classes or hidden patches.
Head = Literal["none", "causal", "masked", "classes", "patches"]
Weights = Literal["pretrained", "drawn"]

MOST_UNSTORED = 4  # parameters for a byte of the files: what is quantised or not saved at all
INSTALL = "pip install 'attnprobe[hf]'"
SAFETENSORS = "weights must be safetensors: save_pretrained() of transformers writes them; pickled ones are not opened"
KNOWN = "config.json must describe a model that transformers itself knows: code that comes with one is never run"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.+/-]+)?", re.ASCII)  # a name, and perhaps a revision


def load(
    source: str,
    *,
    weights: Weights = "pretrained",
    head: Head = "none",
    seed: int = 0,
    download: bool = False,
    permission: str = "",
    attention: str = "sdpa",
) -> "PreTrainedModel":
    """A model in float32 on the CPU, in evaluation mode. source: a folder, or the id of a model on the hub, with
    ``@REVISION`` where another than its main one is meant.

    weights: those of the source, of which none may be missing, or new ones drawn from ``seed`` as the model's own code
    draws them. download: whether the hub may be asked; else an id is looked for in the cache of Hugging Face only.
    permission: what a person writes to allow that. attention: how transformers computes it ("eager", "sdpa").
    A pooling layer is left out. ArtifactError if anything is missing, damaged or needs code of its own; ConfigError if
    the extra is not installed.
    """
    config = read_config(source, download=download, permission=permission)
    if weights == "drawn":
        return from_config(config, head=head, seed=seed, attention=attention)
    given = {
        "config": config,
        "dtype": torch.float32,
        "attn_implementation": _possible(attention, config),
        **_without_pooling(config, head),
    }
    _require_weights(source, config, head)
    with told(source, download, permission, SAFETENSORS):
        model, found = _class(head).from_pretrained(
            **place_of(source, download), use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True, **given,
        )  # fmt: skip
    parts = {name for name, _ in model.named_children()} | {model.base_model_prefix}
    wrong = {
        "of another shape": {name for name, *_ in found["mismatched_keys"]},
        "missing": found["missing_keys"],
        "without a place in the model": {n for n in found["unexpected_keys"] if n.partition(".")[0] in parts},
    }
    for kind, names in wrong.items():
        if names:
            message = f"the weights of {source} are not those of its config.json: {kind}: {_some(names)}"
            raise ArtifactError(message, hint="was the folder copied or downloaded completely?")
    return model.eval()


def from_config(
    config: "PretrainedConfig", *, head: Head = "none", seed: int = 0, attention: str = "sdpa"
) -> "PreTrainedModel":
    """A model of the same kind with weights drawn from ``seed``; torch's global seed is left alone."""
    with reading(Path(config.model_type), KNOWN), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _class(head).from_config(
            config, dtype=torch.float32, attn_implementation=_possible(attention, config), trust_remote_code=False,
            **_without_pooling(config, head),
        )  # fmt: skip
    return model.eval()


def undrawn_backbone(settings: BackboneSettings) -> "PreTrainedModel":
    """The model that ``architecture`` describes, with weights that mean nothing yet."""
    if settings.architecture is None:
        raise ConfigError("model.backbone.architecture is missing", hint="it is read from the source when a run starts")
    return from_config(configuration(settings.table))


def read_config(source: str, *, download: bool = False, permission: str = "") -> "PretrainedConfig":
    """What kind of model it is, and its sizes."""
    transformers = library()
    with told(source, download, permission, KNOWN):
        config = transformers.AutoConfig.from_pretrained(**place_of(source, download))
        _require_end(config)
    return config


def configuration(table: dict[str, Any]) -> "PretrainedConfig":
    """A configuration from plain values, as in config.json; ArtifactError if there is no such model."""
    mapping = library().CONFIG_MAPPING
    values = {key: value for key, value in table.items() if key not in PASSING}
    kind = values.pop("model_type", None)
    with reading(Path(f"a configuration of {kind}"), KNOWN):
        config = mapping[kind].from_dict(values)
        _require_end(config)
    return config


def is_causal(config: "PretrainedConfig") -> bool:
    """Whether a position sees only what is before it. ConfigError if it is no causal or masked encoder."""
    transformers, kind = library(), type(config)
    masked = kind in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if config.is_encoder_decoder or not (masked or kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING):
        message = f"a {config.model_type} is neither a causal nor a masked encoder"
        raise ConfigError(message, hint="choose a model like Pythia, GPT-2, Llama, BERT, RoBERTa or ModernBERT")
    return not masked or getattr(config, "is_decoder", False)


def read_tokenizer(source: str, *, download: bool = False, permission: str = "") -> "PreTrainedTokenizerBase":
    transformers = library()
    with told(source, download, permission, "is there a tokenizer.json?"):
        found = transformers.AutoTokenizer.from_pretrained(**place_of(source, download))
        if not set(found.get_vocab()) - set(found.all_special_tokens):  # what is made where there is no file
            raise ValueError("its tokenizer knows no tokens")
    return found


def library() -> Any:
    """The module ``transformers``, told to say nothing; ConfigError if it is not installed."""
    try:
        import safetensors  # noqa: F401 - as the weights are read with it
        import transformers
    except ImportError as error:
        raise ConfigError("models of Hugging Face need transformers and safetensors", hint=INSTALL) from error
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    return transformers


def split_revision(source: str) -> tuple[str, str | None]:
    """Folder or id, and what stands behind an @; a folder may have one in its name."""
    if Path(source).is_dir() or "@" not in source:
        return source, None
    name, _, revision = source.partition("@")
    return name, revision


def place_of(source: str, download: bool) -> dict[str, Any]:
    """For every ``from_pretrained``: where, of which revision, and that neither code nor, unasked, the hub is used."""
    name, revision = split_revision(source)
    where = {"pretrained_model_name_or_path": name} | ({} if revision is None else {"revision": revision})
    return where | {"trust_remote_code": False, "local_files_only": not download}


@contextlib.contextmanager
def told(source: str, download: bool, permission: str, hint: str) -> Iterator[None]:
    """The boundary around transformers' readers: one line, and a hint of how to allow a download if that would help."""
    path = Path(source)
    if not path.is_dir() and (path.exists() or not HUB_ID.fullmatch(source)):
        hint = "give a folder with config.json and model.safetensors, or an id like EleutherAI/pythia-70m"
        raise ArtifactError(f"{source} is no folder of a Hugging Face model", hint=hint)
    try:
        with reading(path, hint):
            yield
    except AttnprobeError as error:
        if path.is_dir() or download:
            raise
        message = f"{source} is no folder here, and of the hub's model of that name nothing is in the cache"
        if split_revision(source)[1] is not None:
            message = f"the cache of the hub's models has no {source}"
        how = f", or allow a download: {permission}" if permission else ""
        raise ArtifactError(message, hint=f"give a folder{how}") from error


def _class(head: Head) -> Any:
    transformers = library()
    classes = {
        "none": "AutoModel", "causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM",
        "classes": "AutoModelForImageClassification", "patches": "AutoModelForMaskedImageModeling",
    }  # fmt: skip
    return getattr(transformers, classes[head])


def _require_end(config: "PretrainedConfig") -> None:
    layers = getattr(config, "num_hidden_layers", 0)
    if type(layers) is int and layers > MOST_LAYERS:
        raise ValueError(f"it declares {layers:,} layers, and at most {MOST_LAYERS:,} are built")


def _require_weights(source: str, config: "PretrainedConfig", head: Head) -> None:
    """ArtifactError if a folder's files are far too small for what its config.json describes, before it is made."""
    held = sum(file.stat().st_size for file in Path(source).glob("*.safetensors")) if Path(source).is_dir() else 0
    if not held:
        return  # nothing to compare with; what is missing is said by who reads it
    wanted = 0
    with contextlib.suppress(Exception), torch.device("meta"):  # a model that cannot be made so says why later
        model = _class(head).from_config(config, trust_remote_code=False, **_without_pooling(config, head))
        wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > MOST_UNSTORED * held:
        message = f"the config.json of {source} describes {wanted:,} parameters, its weights are {held:,} bytes"
        raise ArtifactError(message, hint="was the folder copied or downloaded completely?")


def _possible(attention: str, config: "PretrainedConfig") -> str:
    """transformers refuses to open a model with a way of computing attention that its code does not have."""
    refused = attention == "sdpa" and not getattr(_built(config), "_supports_sdpa", True)
    return "eager" if refused else attention


def _built(config: "PretrainedConfig") -> Any:
    """The class of the model without head, or None."""
    built = library().MODEL_MAPPING.get(type(config), None)
    return built[0] if isinstance(built, tuple) else built


def _without_pooling(config: "PretrainedConfig", head: Head) -> dict[str, bool]:
    """The option of models that can be made without the layer that pools the first position."""
    if head != "none":
        return {}
    built = _built(config)
    known = built is not None and "add_pooling_layer" in inspect.signature(built.__init__).parameters
    return {"add_pooling_layer": False} if known else {}


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
