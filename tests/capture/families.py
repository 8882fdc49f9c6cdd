"""Tiny sizes for many families of transformers."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    name: str  # as people say it
    kind: str  # transformers' model_type
    sizes: dict[str, Any]
    inputs: Literal["text", "two texts", "pixels", "sound"] = "text"
    image: tuple[int, int] = (16, 16)
    part: str = ""  # sub-module that is watched
    only: str = "*"  # modules whose attention is that of all positions to each other


BASE = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = BASE | {"vocab_size": 41, "max_position_embeddings": 32}
GROUPED = TEXT | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PIXELS = BASE | {"image_size": 16, "patch_size": 4}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 41}
TWO = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "vocab_size": 41,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 32,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 12,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 41,
    "decoder_start_token_id": 0,
}
DISTILBERT = {"dim": 16, "hidden_dim": 12, "n_layers": 2, "n_heads": 2, "vocab_size": 41}
XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 12, "vocab_size": 41}
GPT_NEO = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 41,
    "max_position_embeddings": 32,
    "attention_types": [[["global"], 2]],
}
MPT = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 41, "max_seq_len": 32}
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 41, "state_size": 4}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4}
HIERA = {
    "image_size": [16, 16],
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "query_stride": [2, 2],
    "num_query_pool": 1,
    "masked_unit_size": [4, 4],
    "patch_stride": [2, 2],
    "patch_size": [3, 3],
    "patch_padding": [1, 1],
    "masked_unit_attention": [True, False],
}
BART = TWO | ENDS | {"forced_eos_token_id": 2}
WHISPER = TWO | ENDS | {"num_mel_bins": 8, "max_source_positions": 11, "max_target_positions": 12,
                        "decoder_start_token_id": 3}  # fmt: skip


def text(name: str, kind: str, **changes: Any) -> Family:
    return Family(name=name, kind=kind, sizes=TEXT | changes)


def grouped(name: str, kind: str, **changes: Any) -> Family:
    return Family(name=name, kind=kind, sizes=GROUPED | ENDS | changes)


def pixels(name: str, kind: str, part: str = "", **changes: Any) -> Family:
    return Family(name=name, kind=kind, sizes=PIXELS | changes, inputs="pixels", part=part)


FAMILIES = (
    text("BERT", "bert"),
    text("RoBERTa", "roberta", max_position_embeddings=40, **ENDS),
    text("XLM-RoBERTa", "xlm-roberta", max_position_embeddings=40, **ENDS),
    text("CamemBERT", "camembert", max_position_embeddings=40, **ENDS),
    text("ELECTRA", "electra", embedding_size=16),
    text("ALBERT", "albert", embedding_size=8),
    Family(name="DistilBERT", kind="distilbert", sizes=DISTILBERT),
    text("ModernBERT", "modernbert", global_attn_every_n_layers=1, cls_token_id=1, sep_token_id=2, **ENDS),
    text("ModernBERT, local layers", "modernbert", local_attention=4, cls_token_id=1, sep_token_id=2, **ENDS),
    text("ModernBERT, local layers alone", "modernbert", local_attention=4, layer_types=["sliding_attention"] * 2,
         cls_token_id=1, sep_token_id=2, **ENDS),
    text("DeBERTa", "deberta", pos_att_type=["c2p", "p2c"], relative_attention=True),
    text("DeBERTa-v2", "deberta-v2", pos_att_type=["c2p", "p2c"], relative_attention=True),
    text("MPNet", "mpnet", **ENDS),
    text("RoFormer", "roformer", embedding_size=16),
    text("ConvBERT", "convbert", embedding_size=16, head_ratio=1),
    text("RemBERT", "rembert", input_embedding_size=8),
    text("ESM", "esm", position_embedding_type="rotary", **ENDS),
    text("BigBird, full", "big_bird", attention_type="original_full", **ENDS),
    Family(name="XLNet", kind="xlnet", sizes=XLNET),
    Family(name="GPT-2", kind="gpt2", sizes=GPT),
    Family(name="GPT-Neo", kind="gpt_neo", sizes=GPT_NEO),
    text("GPT-NeoX, Pythia", "gpt_neox"),
    Family(name="GPT-J", kind="gptj", sizes=GPT | {"rotary_dim": 4}),
    Family(name="CodeGen", kind="codegen", sizes=GPT | {"rotary_dim": 2, "n_head": 4}),
    Family(name="BLOOM", kind="bloom", sizes={"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 41}),
    Family(name="MPT", kind="mpt", sizes=MPT),
    text("Falcon", "falcon", num_kv_heads=1),
    Family(name="OPT", kind="opt", sizes=TEXT | {"ffn_dim": 12, "word_embed_proj_dim": 16} | ENDS),
    text("Phi", "phi", **ENDS),
    grouped("Phi-3", "phi3"),
    grouped("Llama", "llama"),
    grouped("Mistral", "mistral"),
    grouped("Mistral, windows of 4", "mistral", sliding_window=4),
    grouped("Mixtral", "mixtral", num_local_experts=2, num_experts_per_tok=1),
    grouped("Qwen2", "qwen2"),
    grouped("Qwen3", "qwen3"),
    grouped("Gemma", "gemma"),
    grouped("Gemma 2 (softcap)", "gemma2", sliding_window=32),
    grouped("Gemma 2, local layers", "gemma2", sliding_window=4),
    grouped("Gemma 3", "gemma3_text", sliding_window=32),
    grouped("gpt-oss (sinks)", "gpt_oss", num_local_experts=2, num_experts_per_tok=1, sliding_window=32),
    grouped("OLMo 2", "olmo2"),
    grouped("StableLM", "stablelm"),
    grouped("Cohere", "cohere"),
    grouped("Starcoder2", "starcoder2"),
    grouped("SmolLM3", "smollm3"),
    Family(name="Mamba (no attention)", kind="mamba", sizes=MAMBA),
    pixels("ViT", "vit"),
    pixels("DeiT", "deit"),
    pixels("DINOv2", "dinov2"),
    pixels("DINOv2 with registers", "dinov2_with_registers"),
    pixels("DINOv3", "dinov3_vit"),
    pixels("BEiT", "beit", use_relative_position_bias=True),
    pixels("I-JEPA", "ijepa"),
    pixels("ViT-MSN", "vit_msn"),
    pixels("YOLOS", "yolos", image_size=[16, 16], num_detection_tokens=3),
    Family(name="CLIP, images", kind="clip_vision_model", sizes=PIXELS, inputs="pixels"),
    Family(name="CLIP, texts", kind="clip_text_model", sizes=TEXT | ENDS),
    Family(name="SigLIP, images", kind="siglip_vision_model", sizes=PIXELS, inputs="pixels", only="*encoder*"),
    Family(name="Swin", kind="swin", sizes=SWIN, inputs="pixels"),
    Family(name="Hiera", kind="hiera", sizes=HIERA, inputs="pixels"),
    Family(name="T5", kind="t5", sizes=T5, inputs="two texts", only="encoder.*"),
    Family(name="mT5", kind="mt5", sizes=T5, inputs="two texts", only="encoder.*"),
    Family(name="BART", kind="bart", sizes=BART, inputs="two texts", only="encoder.*"),
    Family(name="Pegasus", kind="pegasus", sizes=TWO, inputs="two texts", only="encoder.*"),
    Family(name="Whisper, encoder", kind="whisper", sizes=WHISPER, inputs="sound", part="encoder"),
)  # fmt: skip
