"""How a sequence is mixed: attention, positions, and the Transformer made of them."""

from attnprobe.models.config import TransformerConfig as TransformerConfig
from attnprobe.models.heads import ReconstructionTarget as ReconstructionTarget
from attnprobe.models.initialisation import make_model as make_model
from attnprobe.models.mixers.attention import Attention as Attention
from attnprobe.models.transformer import Transformer as Transformer
from attnprobe.scores.call import AttentionCall as AttentionCall
from attnprobe.scores.call import Observer as Observer
