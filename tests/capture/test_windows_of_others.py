"""Foreign models whose layers all see the same window: proximity over visible pairs, from the eager weights."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from attnprobe.capture.watching import watch
from attnprobe.probes import proximity
from tests.capture.coverage import build
from tests.capture.families import FAMILIES

pytestmark = pytest.mark.hf
N, LENGTH, RADIUS = 5, 13, 1
LENGTHS = torch.tensor([13, 7, 11, 9, 13])  # all longer than the windows


@pytest.mark.parametrize("name", ["Mistral, windows of 4", "ModernBERT, local layers alone"])
@pytest.mark.parametrize("padded", [False, True])
def test_proximity_within_windows(name: str, padded: bool) -> None:
    (family,) = [family for family in FAMILIES if family.name == name]
    own = torch.arange(LENGTH) < (LENGTHS if padded else torch.full((N,), LENGTH))[:, None]
    ids = torch.randint(5, 40, (N, LENGTH), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": own.long()}
    subject = watch(build(family, "sdpa"), [given])
    assert subject.space.layout.window == (3 if name.startswith("Mistral") else 2)
    found = proximity.measure(subject, n=N, null="none", radius=RADIUS)
    with torch.no_grad():
        weights = build(family, "eager")(**given, output_attentions=True).attentions
    for layer, weight in enumerate(weights):
        seen = (weight > 0) & own[:, None, :, None]
        assert 0 < seen.double().mean() < 0.6
        scores = weight.double().clamp(min=1e-300).log()
        count = seen.sum(-1, keepdim=True).clamp(min=1)
        centred = torch.where(seen, scores - torch.where(seen, scores, 0.0).sum(-1, keepdim=True) / count, 0.0)
        near = (torch.arange(LENGTH) - torch.arange(LENGTH)[:, None]).abs() <= RADIUS
        for head in range(weight.shape[1]):
            here, shown = centred[:, head], seen[:, head]
            gap = here[shown & near].mean() - here[shown & ~near].mean()
            wanted = float(gap / here[shown].square().mean().sqrt())
            (row,) = [r for r in found.rows if (r.quantity, r.layer, r.head) == ("proximity_bias", layer, head)]
            assert row.interval.estimate == pytest.approx(wanted, abs=1e-4)
            assert np.isfinite(row.interval.low)
