"""Pythia 70M as Amos et al. 2023 train it, by its published sizes and without its weights."""

import pytest
import torch

pytest.importorskip("transformers")

from attnprobe.models import TransformerConfig
from attnprobe.models.hugging_face.settings import BackboneSettings, as_text
from attnprobe.models.initialisation import undrawn
from attnprobe.tasks import Spec

pytestmark = pytest.mark.hf

# config.json of EleutherAI/pythia-70m-deduped
PYTHIA_70M = {
    "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6,
    "num_attention_heads": 8, "intermediate_size": 2048, "max_position_embeddings": 2048, "rotary_pct": 0.25,
    "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "use_parallel_residual": True,
    "tie_word_embeddings": False,
}  # fmt: skip


def test_it_has_the_published_number_of_parameters() -> None:
    """Biderman et al. 2023, Table 1: 18 915 328 without embeddings, 70 426 624 with both tables."""
    backbone = BackboneSettings(architecture=as_text(PYTHIA_70M), weights="drawn")
    text = Spec(length=4096, classes=2, vocabulary=134)  # longer than it was trained on: its positions are rotary
    with torch.device("meta"):
        model = undrawn(TransformerConfig(backbone=backbone, causal=True, readout="last"), text, "classes")
    blocks = sum(p.numel() for p in model.backbone.parameters())
    assert blocks == 18_915_328
    assert blocks + 2 * model.embedding.table.weight.numel() == 70_426_624
