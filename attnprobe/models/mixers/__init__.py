"""The ways in which positions exchange information."""

from attnprobe.models.mixers.attention import AttentionSettings as AttentionSettings
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.models.mixers.contract import Mixer as Mixer
from attnprobe.models.mixers.contract import MixerSettings as MixerSettings
from attnprobe.models.mixers.contract import Site as Site
from attnprobe.models.mixers.state_space.dlr import DLR
from attnprobe.models.mixers.state_space.s4 import S4
from attnprobe.models.mixers.state_space.s4d import S4D

# The name is also that of the mixer's parameters in a model: blocks.<layer>.<name>.*
MIXERS: dict[str, type[MixerSettings]] = {
    "attention": AttentionSettings,
    "block_local": BlockLocalSettings,
    "s4": S4,
    "s4d": S4D,
    "dlr": DLR,
}
