"""What a person chooses of a Hugging Face model that takes the place of our blocks."""

import dataclasses
import json
from typing import Any, Literal

from attnprobe.config import require
from attnprobe.files import parse_json

MOST_LAYERS = 1000  # of any model; a damaged description may declare what takes hours to build
PERMISSION = "-s model.backbone.download=true"
# Of a configuration: who wrote it and how, and heads that are not used; not what the encoder is.
PASSING = (
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map", "architectures", "use_cache",
    "num_labels", "id2label", "label2id", "problem_type", "classifier_dropout",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """A causal or masked encoder of Hugging Face in the place of our blocks, as Amos et al. 2023 train Pythia."""

    source: str | None = None  # a folder with config.json and model.safetensors, or the id of a model on the hub
    # its config.json as one text, by which checkpoints open without the folder; read from the source unless given
    architecture: str | None = None
    weights: Literal["pretrained", "drawn"] = "pretrained"  # those of the source, or new ones of the same distribution
    # what is fed: rows of its own table of tokens (characters, operators, grey levels), or a linear layer of real
    # values; auto: tokens wherever there are some
    inputs: Literal["auto", "tokens", "values"] = "auto"
    # which rows: those its tokenizer has for a character or for the digits of a grey level, or row i for id i; auto:
    # named for pretrained weights and numbered for drawn ones, as published
    tokens: Literal["auto", "named", "numbered"] = "auto"
    download: bool = False  # whether the hub may be asked for what is not here

    def __post_init__(self) -> None:
        given = self.source is not None or self.architecture is not None
        require(given, "source", "is missing", "give a folder or an id, or model.backbone.architecture")
        needed = self.weights == "pretrained" or self.tokens == "named"
        hint = "use weights='drawn', or tell where they are"
        require(self.source is not None or not needed, "source", "is where weights and names of tokens come from", hint)
        if self.architecture is not None:
            try:
                kind = parse_json(self.architecture).get("model_type")
            except (ValueError, RecursionError):
                kind = None
            require(isinstance(kind, str), "architecture", "must be a JSON table with a model_type, as in config.json")

    @property
    def table(self) -> dict[str, Any]:
        """The configuration as plain values."""
        assert self.architecture is not None
        return parse_json(self.architecture)

    @property
    def most_layers(self) -> int:
        """No fewer than it has: what a damaged description must not make endless."""
        if self.architecture is None:
            return 0
        return max((n for key, n in self.table.items() if "layer" in key and type(n) is int), default=0)

    @property
    def named(self) -> bool:
        """Whether tokens are found by their names."""
        return self.tokens == "named" or (self.tokens == "auto" and self.weights == "pretrained")


def as_text(table: dict[str, Any]) -> str:
    """One JSON text of what a model is."""
    return json.dumps({key: value for key, value in table.items() if key not in PASSING}, sort_keys=True)
