"""Tiny models of several kinds, built in code; only for tests that have transformers."""

from pathlib import Path
from typing import Any

import torch

SIZES = {"vocab_size": 41, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 17}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
# transformers' model_type -> the sizes, where it calls them otherwise, or what else it needs
KINDS: dict[str, dict[str, Any]] = {
    "gpt_neox": {"max_position_embeddings": 23},
    "gpt2": {"n_positions": 23},
    "llama": {"num_attention_heads": 4, "hidden_size": 16, "num_key_value_heads": 2},
    "bert": {"max_position_embeddings": 23},
    "roberta": {"max_position_embeddings": 27},
    "modernbert": {"num_hidden_layers": 3, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2},
}
CAUSAL = {"gpt_neox", "gpt2", "llama"}


def description(kind: str, **changes: Any) -> dict[str, Any]:
    """As in config.json."""
    return {"model_type": kind, **SIZES, **ENDS, **KINDS[kind], **changes}


def write(kind: str, folder: Path, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Save a model with its language-model head, as published ones are; returns it."""
    import transformers

    table = description(kind, **changes)
    config = transformers.AutoConfig.for_model(**table)
    auto = transformers.AutoModelForCausalLM if kind in CAUSAL else transformers.AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
    model.save_pretrained(folder)
    return model.eval()


def tokenizer(folder: Path, numbers: int = 256) -> None:
    """Byte-pair merges learned on numbers alone, with the special signs of Pythia."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|endoftext|>", "<|padding|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(map(str, range(numbers)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    fast.save_pretrained(folder)
