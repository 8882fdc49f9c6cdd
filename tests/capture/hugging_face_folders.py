"""Folders as transformers saves them: tiny random models with tokenizers and image processors of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

WORDS = [a + b for a in "bdgklmnprst" for b in ("a", "e", "i", "o")]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
VOCABULARY = len(WORDS) + len(SPECIAL)
SIZES = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SIZES | {"vocab_size": VOCABULARY, "max_position_embeddings": 48}
IMAGES = SIZES | {"image_size": 20, "patch_size": 4}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # model_type -> the class that saves it, and its sizes
    "bert": ("AutoModelForMaskedLM", TEXT),
    "gpt2": (
        "AutoModelForCausalLM",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48, "vocab_size": VOCABULARY},
    ),
    "gpt_neox": ("AutoModelForCausalLM", TEXT),
    "llama": ("AutoModelForCausalLM", TEXT | {"num_key_value_heads": 1}),
    "bloom": ("AutoModelForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY}),
    "vit": ("AutoModelForImageClassification", IMAGES),
}


VISION = {  # further models of images
    "vit_mae": ("AutoModelForPreTraining", IMAGES),
    "dinov2": ("AutoModel", IMAGES),
    "masked vit": ("AutoModelForMaskedImageModeling", IMAGES | {"encoder_stride": 4}),
}


def write_model(name: str, folder: Path, *, spread: float = 0.5, seed: int = 0, **changes: Any) -> Path:
    """With weights so large that attention is not uniform."""
    import transformers

    kind = name.split()[-1]
    saved_by, sizes = (KINDS | VISION)[name]
    config = transformers.AutoConfig.for_model(kind, **sizes | {"initializer_range": spread} | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        getattr(transformers, saved_by).from_config(config).save_pretrained(folder)
    if "patch_size" in sizes:
        settings = {"do_resize": True, "size": {"height": 20, "width": 20}, "do_normalize": True, "do_rescale": True}
        settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "ViTImageProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    else:
        write_tokenizer(folder, around=kind == "bert")
    return folder


def write_tokenizer(folder: Path, *, around: bool) -> None:
    """A token a word; around: [CLS] and [SEP] stand around every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if around:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, model_max_length=48).save_pretrained(folder)


def write_text(path: Path, words: int = 300) -> Path:
    drawn = np.random.default_rng(0).choice(WORDS, words)
    path.write_text(" ".join(drawn))
    return path


def write_table(path: Path, rows: int = 40) -> Path:
    draws = np.random.default_rng(1)
    lines = [f"{' '.join(draws.choice(WORDS, draws.integers(3, 14)))},{'yes' if i % 2 else 'no'}" for i in range(rows)]
    path.write_text("\n".join(["text,answer", *lines]))
    return path


def write_images(folder: Path, each: int = 6) -> Path:
    draws = np.random.default_rng(2)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = draws.integers(0, 256, (23, 29, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
