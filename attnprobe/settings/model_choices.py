"""What can be put into ``[model]``: every mixer, kind of positions, norm and so on, with what it is and its source."""

import dataclasses
import re
from collections.abc import Mapping

from attnprobe.settings import CITATION, Setting, all_settings, sections

OURS = "our choice"
AMOS = "Amos et al. 2023"
THEIR_CODE = "the code of Amos et al. 2023"
VASWANI = "Vaswani et al. 2017"
GLOSS: Mapping[str, Mapping[str, tuple[str, str]]] = {  # mixers say it in their own docstrings
    "positions": {
        "none": ("no position is told; state-space models and moving averages need none", AMOS),
        "learned": ("a learned vector of each position is added to its features", "Tay et al. 2021"),
        "sinusoidal": ("a fixed table of sines and cosines is added to the features", VASWANI),
        "rotary": ("queries and keys are turned by an angle that grows with the position", "Su et al. 2021"),
    },
    "readout": {
        "mean": ("labels are read from the mean of the positions", AMOS),
        "max": ("labels are read from the maximum over the positions, in every channel", AMOS),
        "last": ("labels are read from the last position", AMOS),
        "token": ("labels are read from a learned token in front of the sequence", "Tay et al. 2021"),
    },
    "label_head": {
        "linear": ("logits are linear in what was read", AMOS),
        "mlp": ("one hidden layer before the logits", THEIR_CODE),
    },
    "reconstruction_head": {
        "linear": ("what was hidden is linear in the features of its position", AMOS),
        "identity": ("the features of a position are the logits of its token", THEIR_CODE),
    },
    "activation": {
        "gelu": (
            "between the two layers of an MLP, x times the normal distribution function",
            "Hendrycks, Gimpel 2016",
        ),
        "silu": ("between the two layers of an MLP, x times the logistic function", "Ma et al. 2023"),
    },
    "norm": {
        "layer": ("mean 0 and variance 1 within every position", "Ba et al. 2016"),
        "batch": ("mean 0 and variance 1 of every channel over a training batch", "Ioffe, Szegedy 2015"),
        "scale": ("mean square 1 within every position, with one gain for all", "Nguyen, Salazar 2019"),
    },
    "norm_place": {
        "before": ("norms stand before every mixer and every MLP, and once at the end", "Xiong et al. 2020"),
        "after": ("norms stand after the output of each was added", VASWANI),
    },
    "padding": {
        "masked": ("padding is never looked at", VASWANI),
        "attended": ("padding is looked at like any other position", THEIR_CODE),
    },
    "init": {
        "independent": ("W_Q, W_K, W_V and W_O are drawn one by one", OURS),
        "tied": ("W_Q, W_K, W_V and W_O start as copies of one matrix", THEIR_CODE),
        "proximity": ("W_Q and W_K start as the identity: positions make a kernel of the distance", OURS),
        "shuffled": ("the same with the rows of W_K in random order: no kernel, equal norms", OURS),
    },
    "embedding_fan_in": {
        "with_mask": ("the start of the embedding of values is bounded by all its inputs", OURS),
        "without_mask": ("the mask channel does not count in that bound", THEIR_CODE),
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of one setting of the model."""

    setting: str  # after "model.": mixer, positions, ...
    name: str
    default: bool
    what: str
    source: str


def choices() -> list[Choice]:
    """All of them, mixers first, in the order in which they are declared."""
    found = [s for s in all_settings() if s.key == "model.mixer.name" or (s.section == "model" and is_named(s))]
    found.sort(key=lambda setting: setting.key != "model.mixer.name")
    return [choice_of(setting, str(value)) for setting in found for value in setting.values]


def is_named(setting: Setting) -> bool:
    """Whether its values are names."""
    return bool(setting.values) and all(isinstance(value, str) for value in setting.values)


def choice_of(setting: Setting, value: str) -> Choice:
    name = setting.key.removeprefix("model.").removesuffix(".name")
    if name == "mixer":
        text = sections()[f"model.mixer[{value}]"]
        cited = re.search(rf" \(({CITATION.pattern}.*)\)", text)
        what, source = (text, OURS) if cited is None else (text.replace(cited[0], ""), cited[1])
    else:
        what, source = GLOSS[name][value]
    return Choice(setting=name, name=value, default=value == setting.default, what=what.rstrip("."), source=source)
