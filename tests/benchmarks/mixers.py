"""What mixers cost: attention in windows beside dense attention under the same mask, every mixer against length, and
windows at the lengths they are made for.

As a program, ``python -m tests.benchmarks.mixers [THREADS]`` prints the page that RESULTS.md quotes. Peers take turns
in every round; a time is that of a pass forward and backward of one layer.
"""

import functools
import math
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.bench.fresh import peak_resident
from attnprobe.bench.report import heading, surroundings, table
from attnprobe.config import build
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers import MIXERS
from attnprobe.models.mixers.block_local import BlockLocal
from attnprobe.scores.visibility import Visibility
from attnprobe.tasks import Spec

WIDTH, HEADS, ROUNDS = 64, 4, 7
SIZES = {
    "block_local": {"window": 256}, "s4": {"states": 16}, "s4d": {"states": 16}, "dlr": {"states": 64},
    "performer": {"features": 64}, "linformer": {"rank": 64}, "longformer": {"window": 64}, "bigbird": {"block": 64},
    "mega": {"chunk": 128}, "spade": {"states": 16},
}  # fmt: skip


def layer(name: str, length: int, d_model: int = WIDTH, **settings: object) -> torch.nn.Module:
    table = {"d_model": d_model, "heads": HEADS, "layers": 1, "mixer": {"name": name, **settings}}
    model = make_model(build(TransformerConfig, table), Spec(length=length, classes=2), "values", seed=0)
    return model.blocks[0].get_submodule(name)


def seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    x.grad = None
    start = time.perf_counter()
    run(x).sum().backward()
    return time.perf_counter() - start


def take_turns(peers: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int = ROUNDS) -> dict[str, np.ndarray]:
    """Seconds of every round (rounds,), after one round that does not count."""
    found = {name: [] for name in peers}
    for _ in range(rounds + 1):
        for name, run in peers.items():
            found[name].append(seconds(run, x))
    return {name: np.array(times[1:]) for name, times in found.items()}


def dense(made: BlockLocal) -> Callable[[Tensor], Tensor]:
    """The same layer by torch's attention under the whole mask."""

    def run(x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (made.q, made.k, made.v))
        mask = Visibility(block=made.window).whole(x.shape[1])
        return made.o(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))

    return run


def windows_beside_dense(length: int, window: int) -> dict[str, str]:
    """A row: times, and their ratio (median, with the 10 and 90 % quantiles of rounds) in parts of length / 3 windows,
    which is how many times fewer scores there are.
    """
    made = layer("block_local", length, window=window)
    assert isinstance(made, BlockLocal)
    x = torch.randn(1, length, WIDTH, requires_grad=True)
    assert torch.allclose(made(x), dense(made)(x), atol=1e-5)
    found = take_turns({"windows": made, "dense": dense(made)}, x)
    ratios = found["dense"] / found["windows"]
    most = length / (3 * window)
    low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    times = {f"{name}, ms": f"{1000 * np.median(found[name]):.1f}" for name in ("windows", "dense")}
    share = f"{middle / most:.2f} [{low / most:.2f}, {high / most:.2f}]"
    row = {"length": str(length), "window": str(window), **times, "times as fast": f"{middle:.1f}"}
    return row | {"L / 3w": f"{most:.1f}", "share of L / 3w": share}


def growth(name: str, lengths: tuple[int, ...] = (1024, 2048, 4096)) -> dict[str, str]:
    """A row: milliseconds at every length, and the exponent between the first and the last."""
    times: dict[int, float] = {}
    for length in lengths:
        x = torch.randn(1, length, WIDTH, requires_grad=True)
        made = layer(name, length, **SIZES.get(name, {}))
        run = functools.partial(made, residual=x) if MIXERS[name].layer.gates else made
        found = take_turns({name: run}, x, rounds=5)
        times[length] = float(np.median(found[name]))
    exponent = math.log(times[lengths[-1]] / times[lengths[0]], lengths[-1] / lengths[0])
    shown = {f"ms at {length}": f"{1000 * t:.1f}" for length, t in times.items()}
    return {"mixer": name, **shown, "exponent": f"{exponent:.2f}"}


def at_length(length: int, window: int) -> tuple[float, float]:
    """(milliseconds, MiB) that windows take at this length, the memory above what the process had before."""
    made, x = layer("block_local", length, window=window), torch.randn(1, length, WIDTH, requires_grad=True)
    before = peak_resident()
    times = take_turns({"windows": made}, x, rounds=3)["windows"]
    return 1000 * float(np.median(times)), (peak_resident() - before) / 2**20


def long_windows(lengths: tuple[int, ...] = (16384, 32768, 65536), window: int = 1000) -> list[dict[str, str]]:
    """Rows of ``at_length``, each in a process of its own, and the exponents from the first length on."""
    rows: list[dict[str, str]] = []
    found: dict[int, tuple[float, float]] = {}
    for length in lengths:
        code = f"import torch; torch.set_num_threads({torch.get_num_threads()}); from tests.benchmarks import mixers; "
        code += f"print(*mixers.at_length({length}, {window}))"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        time_taken, memory = (float(number) for number in answer.stdout.split())
        found[length] = time_taken, memory
        row = {"length": str(length), "window": str(window), "ms": f"{time_taken:.0f}", "MiB": f"{memory:.0f}"}
        for number, name in enumerate(("exponent of time", "exponent of memory")):
            first = lengths[0]
            grown = math.log(found[length][number] / found[first][number])
            row[name] = "" if length == first else f"{grown / math.log(length / first):.2f}"
        rows.append(row)
    return rows


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(threads)
    lines = heading(surroundings(torch.device("cpu")), f"python -m tests.benchmarks.mixers {threads}")
    pairs = [windows_beside_dense(length, window) for length, window in ((2048, 128), (4096, 256), (8192, 256))]
    print(
        "\n".join(
            [*lines, "", *table(pairs), "", *table([growth(name) for name in MIXERS]), "", *table(long_windows())]
        )
    )


if __name__ == "__main__":
    main()
