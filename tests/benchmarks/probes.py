"""What the probes take in time and memory: scores by offset against dense ones, and every probe under its limit.

Run as a program: ``python -m tests.benchmarks.probes [--long]`` prints Markdown. Every line of its tables comes from a
process of its own with one thread; seconds are processor time, and peaks are above what imports, a first call on
64 positions, model and data took.
"""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnprobe.bench.fresh import peak_resident
from attnprobe.capture import ours
from attnprobe.errors import RunError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import alignment, decomposition, interventions, proximity
from attnprobe.probes.alignment import change
from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import score_moments
from attnprobe.scores.pattern_sums import fold
from attnprobe.tasks import Spec, Split

MIB = 2**20
HEADS, D_HEAD = 4, 16
LENGTH, ROUNDS = 4096, 7
TOLERANCE = 1e-5  # of float32 against dense float64, relative to the largest value
SEQUENCES = 100  # of the probes at 1024 positions
LONGEST = 3600.0  # seconds for one process

Sums = tuple[Tensor, Tensor | None]


def by_transform(q: Tensor, k: Tensor, *, squares: bool) -> Sums:
    return score_moments(q, k, Layout(shape=(q.shape[-2],)), scale=1.0, squares=squares)


def centred_scores(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.mT
    return scores.sub_(scores.mean(-1, keepdim=True))


def by_padding(q: Tensor, k: Tensor, *, squares: bool) -> Sums:
    """Sums along diagonals by reading a padded buffer with shorter rows."""
    scores = centred_scores(q, k)
    return fold(scores), fold(scores.square_()) if squares else None


def by_diagonals(q: Tensor, k: Tensor, *, squares: bool) -> Sums:
    scores, offsets = centred_scores(q, k), range(1 - q.shape[-2], q.shape[-2])
    sums = torch.stack([scores.diagonal(o, -2, -1).sum(-1) for o in offsets], -1)
    if not squares:
        return sums, None
    return sums, torch.stack([scores.diagonal(o, -2, -1).square().sum(-1) for o in offsets], -1)


def by_scatter(q: Tensor, k: Tensor, *, squares: bool) -> Sums:
    scores, position = centred_scores(q, k).flatten(-2), torch.arange(q.shape[-2])
    index = (position - position[:, None] + len(position) - 1).flatten()
    zeros = q.new_zeros(*q.shape[:2], 2 * len(position) - 1)
    sums = zeros.index_add(-1, index, scores)
    return sums, zeros.index_add(-1, index, scores.square_()) if squares else None


WAYS: dict[str, Callable[..., Sums]] = {
    "transform (ours)": by_transform,
    "dense, padded buffer": by_padding,
    "dense, diagonals": by_diagonals,
    "dense, scatter": by_scatter,
}

Measure = Callable[..., Any]  # (subject, limit)
PROBES: dict[str, Measure] = {
    "proximity": lambda s, limit: proximity.measure(s, n=s.samples, memory_limit=limit),
    "decompose": lambda s, limit: decomposition.measure(s, n=s.samples, memory_limit=limit),
    "alignment": lambda s, limit: alignment.measure(s, memory_limit=limit),
    "alignment --change-to": lambda s, limit: change.change_of_scores(s, s, memory_limit=limit),
    "intervene": lambda s, limit: interventions.dose_response(
        s, doses=(-1.0, 0.0, 1.0), controls=2, memory_limit=limit
    ),
}


def prepare_way(name: str, length: int, squares: bool, dtype: torch.dtype = torch.float32) -> Callable[[], Sums]:
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, HEADS, length, D_HEAD, generator=g).to(dtype) for _ in range(2))
    return functools.partial(WAYS[name], q, k, squares=squares)


def prepare_probe(name: str, length: int, n: int, limit: int) -> Callable[[], Any]:
    """4 heads, d_model 64, one layer, two classes."""
    model = make_model(TransformerConfig(), Spec(length=length, classes=2), "values", seed=0).eval()
    inputs = torch.randn(n, length, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(n) % 2)
    return lambda: PROBES[name](ours.of(model, split), limit)


def largest_error(name: str, squares: bool) -> float:
    """Against dense float64, at 1024 positions."""
    found = prepare_way(name, 1024, squares)()
    wanted = prepare_way("dense, diagonals", 1024, squares, torch.float64)()
    pairs = [(f, w) for f, w in zip(found, wanted, strict=True) if f is not None and w is not None]
    return max(float((f.double() - w).abs().max() / w.abs().max()) for f, w in pairs)


def child(kind: str, name: str, rounds: int, *settings: Any) -> dict[str, Any]:
    """Seconds of every round and the peak of the first, in this process."""
    torch.set_num_threads(1)
    prepare = prepare_way if kind == "way" else prepare_probe
    prepare(name, 64, *settings[1:])()
    call, before, seconds, peak = prepare(name, *settings), peak_resident(), [], 0
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
        peak = peak or peak_resident() - before
    error = largest_error(name, settings[1]) if kind == "way" else None
    return {"seconds": seconds, "peak": peak, "error": error}


def in_a_process(kind: str, name: str, rounds: int, *settings: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.probes", "child", json.dumps([kind, name, rounds, *settings])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        raise RunError(
            f"{name} failed in a process of its own: {done.stderr.strip().splitlines()[-1:]}",
            hint="run it alone to see the whole message: ATTNPROBE_DEBUG=1 attnprobe bench",
        )
    return json.loads(done.stdout.splitlines()[-1])


def way_lines() -> list[str]:
    lines = ["| sums by offset | way | seconds | peak MiB | error |", "| --- | --- | --- | --- | --- |"]
    for squares in (False, True):
        what = "scores and squares" if squares else "scores"
        for name in WAYS:
            found = in_a_process("way", name, ROUNDS, LENGTH, squares)
            seconds = sorted(found["seconds"])
            if found["error"] > TOLERANCE:
                raise RunError(
                    f"{name}: {found['error']:.0e} away from dense float64",
                    hint="its speed is not measured while its numbers are wrong; this is a bug, please report it",
                )
            text = f"{seconds[len(seconds) // 2]:.4f} ({seconds[0]:.4f}-{seconds[-1]:.4f})"
            lines.append(f"| {what} | {name} | {text} | {found['peak'] / MIB:.0f} | {found['error']:.0e} |")
    return lines


def probe_lines(long: bool) -> list[str]:
    cases = [(name, 1024, SEQUENCES, mib) for name in PROBES for mib in (1024, 256)]
    cases += [("proximity", 16384, 4, 1024)] + [("proximity", 65536, 1, 1024)] * long
    lines = ["| probe | length | sequences | limit MiB | peak MiB | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for name, length, n, limit in cases:
        found = in_a_process("probe", name, 1, length, n, limit * MIB)
        peak, seconds = found["peak"] / MIB, found["seconds"][0]
        lines.append(f"| {name} | {length} | {n} | {limit} | {peak:.0f} | {seconds:.1f} |")
    return lines


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(*json.loads(sys.argv[2]))))
        return
    print(f"Length {LENGTH}, {HEADS} heads, d_head {D_HEAD}; median (min-max) of {ROUNDS} rounds.\n")
    print("\n".join([*way_lines(), "", *probe_lines("--long" in sys.argv[1:])]))


if __name__ == "__main__":
    main()
