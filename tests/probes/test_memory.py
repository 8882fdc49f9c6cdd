"""Peak memory of the probes, each in a process of its own: it stays below the limit, and only because of the limit."""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
PRELUDE = """
import torch
torch.set_num_threads(1)
from attnprobe.bench.fresh import peak_resident
from attnprobe.capture import ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment import change
from attnprobe.probes import alignment, decomposition, interventions, proximity
from attnprobe.tasks import Spec, Split
def go(length, n, limit):
    model = make_model(TransformerConfig(), Spec(length=length, classes=2), "values", seed=0)
    split = Split(inputs=torch.randn(n, length, 1), labels=torch.arange(n) % 2)
    subject = ours.of(model, split)
    {call}
go(64, 8, 2**30)
before = peak_resident()
for limit in ({limit}, 2**32):
    go({length}, {n}, limit)
    print(peak_resident() - before)
"""

# One matrix of scores of length 6007 with 4 heads takes 551 MiB. At length 384 mean gradients over (query, key) take
# 90 MiB, and 30 sequences of scores in float64 135 MiB.
CASES = {
    "proximity": ("proximity.measure(subject, draws=19, memory_limit=limit)", 6007, 1, 100),
    "decompose": ("decomposition.measure(subject, memory_limit=limit)", 6007, 2, 100),
    "alignment": ("alignment.measure(subject, shuffles=19, orders=19, memory_limit=limit)", 384, 40, 96),
    "intervene": (
        "interventions.dose_response(subject, doses=(1.0,), controls=2, memory_limit=limit)", 768, 60, 128,
    ),
    "change": ("change.change_of_scores(subject, subject, memory_limit=limit)", 384, 30, 48),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of one program are read from /proc")
@pytest.mark.parametrize("name", CASES)
def test_peak_memory_stays_below_the_limit(name: str) -> None:
    call, length, n, limit = CASES[name]
    program = PRELUDE.format(call=call, length=length, n=n, limit=limit * MIB)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    limited, free = map(int, done.stdout.split())
    assert limited < limit * MIB
    if name not in ("proximity", "decompose"):  # which need little in any case: they have no quadratic part
        assert free > limit * MIB
