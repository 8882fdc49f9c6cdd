"""Scores before the softmax, as attnprobe, TorchLens and TransformerLens give them: right or wrong, seconds, memory.

``python -m tests.benchmarks.capture_peers`` where transformers, torchlens and transformer-lens are installed prints
the tables of RESULTS.md. All are given the same tiny models of random weights. TransformerLens computes eagerly, as it
always does; the others watch the fused kernel.
"""

import importlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes import proximity
from attnprobe.scores.call import AttentionCall
from tests.capture.hugging_face_folders import write_tokenizer

LAYERS, HEADS, VOCABULARY, LENGTHS = 2, 4, 97, (512, 2048)
BASE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
TEXT = BASE | {"max_position_embeddings": LENGTHS[-1]}
GPT2 = {"n_embd": 64, "n_layer": LAYERS, "n_head": HEADS, "n_positions": LENGTHS[-1]}
KINDS: dict[str, tuple[str, dict[str, int], str]] = {  # -> class, sizes, names of the modules that attend
    "bert": ("BertForMaskedLM", TEXT, "bert.encoder.layer.{}.attention.self"),
    "gpt2": ("GPT2LMHeadModel", GPT2, "transformer.h.{}.attn"),
    "gpt_neox": ("GPTNeoXForCausalLM", TEXT, "gpt_neox.layers.{}.attention"),
    "llama": ("LlamaForCausalLM", TEXT | {"num_key_value_heads": 2}, "model.layers.{}.self_attn"),
}
SHORT, RIGHT, ROUNDS = 61, 1e-4, 3
MEASURED = "gpt2"  # of which all three give the right scores

Pass = Callable[[Tensor], list[Tensor]]  # tokens (1, length) -> scores (1, head, query, key) of every layer


def make(kind: str, kernel: str = "sdpa") -> nn.Module:
    name, sizes, _ = KINDS[kind]
    torch.manual_seed(0)
    more = {"vocab_size": VOCABULARY, "initializer_range": 0.5, "use_cache": False}
    more |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(kind, **sizes | more)
    config._attn_implementation = kernel
    return getattr(transformers, name)(config).eval()


def tokens(length: int) -> Tensor:
    return torch.randint(1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(1))


def reference(kind: str, ids: Tensor) -> list[Tensor]:
    """What the softmax of the eager kernel is given in float64, with what it hides far below everything."""
    model, given, softmax = make(kind, "eager").double(), [], F.softmax

    def watched(scores: Tensor, *args: Any, **more: Any) -> Tensor:
        given.append(scores)
        return softmax(scores, *args, **more)

    F.softmax = nn.functional.softmax = watched
    try:
        with torch.no_grad():
            model(ids)
    finally:
        F.softmax = nn.functional.softmax = softmax
    assert [x.dtype for x in given] == LAYERS * [torch.float64]
    return given


def plain(kind: str, ids: Tensor) -> Pass:
    model = make(kind)

    def run(ids: Tensor) -> list[Tensor]:
        model(ids)
        return []

    return run


def by_attnprobe(kind: str, ids: Tensor) -> Pass:
    """The scores as matrices, which its own probes never make."""
    subject = watch(make(kind), [{"input_ids": ids}])

    def run(ids: Tensor) -> list[Tensor]:
        found: list[AttentionCall] = []
        subject.run(np.zeros(1, dtype=np.int64), observe=found.append)
        return [call.scores() for call in found]

    return run


def probed(kind: str, ids: Tensor) -> Pass:
    """The whole proximity probe, without matrices."""
    subject = watch(make(kind), [{"input_ids": ids}])

    def run(ids: Tensor) -> list[Tensor]:
        proximity.measure(subject, n=1, null="none")
        return []

    return run


def by_torchlens(kind: str, ids: Tensor) -> Pass:
    model, torchlens = make(kind), importlib.import_module("torchlens")

    def run(ids: Tensor) -> list[Tensor]:
        log = torchlens.trace(model, ids, reconstruction_ready=True)
        return [log.modules[KINDS[kind][2].format(layer)].facets["scores"].value for layer in range(LAYERS)]

    return run


def by_transformer_lens(kind: str, ids: Tensor) -> Pass:
    bridge = importlib.import_module("transformer_lens.model_bridge").TransformerBridge
    model = make(kind, "eager")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        write_tokenizer(Path(folder), around=False)
        lens = bridge.boot_transformers(folder, hf_model=model)
    names = [f"blocks.{layer}.attn.hook_attn_scores" for layer in range(LAYERS)]

    def run(ids: Tensor) -> list[Tensor]:
        cache = lens.run_with_cache(ids, names_filter=names)[1]
        return [cache[name] for name in names]

    return run


TOOLS = {
    "no capture": plain, "attnprobe": by_attnprobe, "attnprobe, proximity probe": probed, "TorchLens": by_torchlens,
    "TransformerLens": by_transformer_lens,
}  # fmt: skip
CAPTURING = ("attnprobe", "TorchLens", "TransformerLens")


def verdict(found: list[Tensor], wanted: list[Tensor]) -> str:
    """Of what a tool hands out as scores, at the pairs that are not hidden."""
    error = pattern = 0.0
    for one, other in zip(found, wanted, strict=True):
        seen = other > -1e30
        error = max(error, float((one.double() - other)[seen].abs().max() / other[seen].abs().max()))
        pattern = max(pattern, float((one.double() - other.softmax(-1)).abs().max()))
    if error < RIGHT:
        return f"right ({error:.0e})"
    return "wrong: the pattern after the softmax" if pattern < RIGHT else f"wrong (off by {error:.0e} of the largest)"


@torch.no_grad()
def judge(kind: str, tool: str) -> str:
    ids = tokens(SHORT)
    try:
        return verdict(TOOLS[tool](kind, ids)(ids), reference(kind, ids))
    except Exception as error:  # whatever a library raises is its answer
        return f"none: {type(error).__name__} {str(error)[:60]}"


@torch.no_grad()
def measure(tool: str) -> None:
    """Of every length processor seconds of a pass, and MiB that a first one takes, with the model and all that comes
    before the pass; in a process of its own, in which everything was loaded and run on a short sequence.
    """
    TOOLS[tool](MEASURED, tokens(SHORT))(tokens(SHORT))
    for length in LENGTHS:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the peak so far
        before, ids = resident("VmRSS"), tokens(length)
        run = TOOLS[tool](MEASURED, ids)
        scores = run(ids)
        peak = resident("VmHWM") - before
        del scores
        seconds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            run(ids)
            seconds.append(time.process_time() - start)
        print(f" {statistics.median(seconds):.3f} | {peak:.0f} |", end="")


def resident(name: str) -> float:
    """MiB"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:")) / 1024


def main() -> None:
    packages = ("torch", "transformers", "torchlens", "transformer-lens")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    for tool in CAPTURING:
        print(f"| {tool} |", " | ".join(judge(kind, tool) for kind in KINDS), "|", flush=True)
    for tool in TOOLS:
        command = [sys.executable, "-m", __spec__.name, tool]
        finished = subprocess.run(command, capture_output=True, text=True)
        print(f"| {tool} |{finished.stdout or finished.stderr.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    library()
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        main()
