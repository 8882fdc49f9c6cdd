"""What it costs to watch a Hugging Face model: processor time of a pass, and memory of long sequences.

``python -m tests.benchmarks.watching`` prints the rows of RESULTS.md. Passes with and without are run in turns.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import transformers

from attnprobe.capture.watching import watch

BERT = {"num_hidden_layers": 6, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
ROUNDS = 9


def model(length: int, **sizes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **BERT | {"max_position_embeddings": length} | sizes)
    return transformers.AutoModel.from_config(config, attn_implementation="sdpa", add_pooling_layer=False).eval()


def seconds(call: Callable[[], object]) -> float:
    """Of processor time, which other people's work on the machine changes least."""
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.no_grad()
def overhead(length: int = 512) -> None:
    bert, batch = model(length), {"input_ids": torch.randint(5, 1000, (1, length))}
    subject, one = watch(bert, [batch]), np.zeros(1, dtype=np.int64)
    pairs = []
    for _ in range(ROUNDS):
        pairs.append((seconds(lambda: bert(**batch)), seconds(lambda: subject.run(one, observe=lambda call: None))))
    plain, ratios = [pair[0] for pair in pairs[2:]], [pair[1] / pair[0] for pair in pairs[2:]]
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    print(f"| 6 layers, {length} tokens | {1e3 * np.median(plain):.0f} | {middle:.3f} [{low:.3f}, {high:.3f}] |")


@torch.no_grad()
def memory(length: int, watched: bool) -> None:
    """Peak of a process that runs one pass of one layer, in MiB."""
    bert, batch = model(length, num_hidden_layers=1), {"input_ids": torch.randint(5, 1000, (1, length))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if watched:
        watch(bert, [batch]).run(np.zeros(1, dtype=np.int64), observe=lambda call: None)
    else:
        bert(**batch)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{before / 1024:.0f} {after / 1024:.0f}")


def main() -> None:
    overhead()
    for watched in (0, 1):
        command = [sys.executable, "-m", "tests.benchmarks.watching", "8192", str(watched)]
        before, after = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        print(f"| 1 layer, 12 heads, 8192 tokens{', watched' if watched else ''} | {before} | {after} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        memory(int(sys.argv[1]), watched=bool(int(sys.argv[2])))
    else:
        main()
