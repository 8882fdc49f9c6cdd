"""The ways in which positions exchange information."""

from attnprobe.models.mixers.attention import AttentionSettings as AttentionSettings
from attnprobe.models.mixers.contract import Mixer as Mixer
from attnprobe.models.mixers.contract import MixerSettings as MixerSettings
from attnprobe.models.mixers.contract import Site as Site

# The name is also that of the mixer's parameters in a model: blocks.<layer>.<name>.*
MIXERS: dict[str, type[MixerSettings]] = {
    "attention": AttentionSettings,
}
