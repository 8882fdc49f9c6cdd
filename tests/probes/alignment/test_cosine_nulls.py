"""p-values of cosines: uniform where labels have nothing to do with the data, small where they were planted."""

import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment.probe import measure
from attnprobe.scores.directions import Direction
from attnprobe.scores.distance_profiles import contrast_profile
from attnprobe.tasks import Spec, Split


def small(seed: int, inputs: torch.Tensor, labels: torch.Tensor) -> Ours:
    config = TransformerConfig(d_model=8, layers=1, heads=1, d_mlp=8)
    model = make_model(config, Spec(length=inputs.shape[1], classes=2), "values", seed=seed)
    return ours.of(model, Split(inputs=inputs, labels=labels), seed=seed)


def p_values(subject: Ours, seed: int) -> dict[str, float]:
    direction = Direction(name="contrast", profile=contrast_profile(subject.space.layout, 1.0))
    found = measure(subject, directions=[direction], shuffles=39, null="none", groups=4, seed=seed)
    return {r.quantity: r.p_value for r in found.rows if r.p_value is not None and r.quantity.startswith("cosine")}


@pytest.mark.slow
def test_without_a_signal_they_are_uniform() -> None:
    found: dict[str, list[float]] = {}
    for seed in range(50):
        draw = torch.Generator().manual_seed(seed)
        inputs = torch.randn(24, 9, 1, generator=draw)
        inputs[:, 1:] += inputs[:, :-1].clone()  # neighbours agree: reconstruction has something to pull at
        labels = torch.randint(0, 2, (24,), generator=draw)
        for quantity, p in p_values(small(seed, inputs, labels), seed).items():
            found.setdefault(quantity, []).append(p)
    assert set(found) == {f"cosine.{where}" for where in ("scores", "offsets", "W_Q", "W_K")}
    for quantity, p in found.items():
        jitter = np.random.default_rng(0).uniform(size=50) / 40
        assert stats.kstest(np.array(p) - jitter, "uniform").pvalue > 0.005, quantity
        assert stats.binomtest(sum(x <= 0.05 for x in p), 50, 0.05).pvalue > 0.005, quantity


def test_labels_that_pull_where_reconstruction_pulls_are_seen() -> None:
    """Class 0: neighbours agree; class 1: white noise."""
    labels = torch.arange(300) % 2
    walk = torch.randn(300, 13, 1, generator=torch.Generator().manual_seed(0))
    for step in range(1, 13):
        walk[labels == 0, step] = 0.9 * walk[labels == 0, step - 1] + 0.44 * walk[labels == 0, step]
    smallest = {}
    for seed in range(3):
        for quantity, p in p_values(small(seed, walk, labels), seed).items():
            smallest[quantity] = min(p, smallest.get(quantity, 1.0))
    assert all(p == 1 / 40 for p in smallest.values()), smallest
