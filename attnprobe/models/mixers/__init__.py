"""The ways in which positions exchange information."""

from attnprobe.models.mixers.attention import AttentionSettings as AttentionSettings
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.models.mixers.contract import Mixer as Mixer
from attnprobe.models.mixers.contract import MixerSettings as MixerSettings
from attnprobe.models.mixers.contract import Site as Site
from attnprobe.models.mixers.efficient.bigbird import BigBirdSettings
from attnprobe.models.mixers.efficient.linear import LinearSettings, PerformerSettings
from attnprobe.models.mixers.efficient.linformer import LinformerSettings
from attnprobe.models.mixers.efficient.longformer import LongformerSettings
from attnprobe.models.mixers.efficient.reformer import ReformerSettings
from attnprobe.models.mixers.mega import MegaSettings
from attnprobe.models.mixers.spade import SpadeSettings
from attnprobe.models.mixers.state_space.dlr import DLRSettings
from attnprobe.models.mixers.state_space.s4 import S4Settings
from attnprobe.models.mixers.state_space.s4d import S4DSettings

# The name is also that of the mixer's parameters in a model: blocks.<layer>.<name>.*
MIXERS: dict[str, type[MixerSettings]] = {
    "attention": AttentionSettings,
    "block_local": BlockLocalSettings,
    "s4": S4Settings,
    "s4d": S4DSettings,
    "dlr": DLRSettings,
    "linear": LinearSettings,
    "performer": PerformerSettings,
    "linformer": LinformerSettings,
    "longformer": LongformerSettings,
    "bigbird": BigBirdSettings,
    "reformer": ReformerSettings,
    "mega": MegaSettings,
    "spade": SpadeSettings,
}
