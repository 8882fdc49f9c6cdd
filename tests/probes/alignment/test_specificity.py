"""The rank of a direction among its shuffles: uniform without structure, extreme where the direction was planted."""

import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.capture import ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment.probe import measure
from attnprobe.probes.alignment.specificity import centred_norm, specificity
from attnprobe.scores.directions import Direction, ScoreSpace, norm_and_means
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Spec, Split

LAYOUTS = [
    Layout(shape=(19,)),
    Layout(shape=(19,), causal=True),
    Layout(shape=(5, 7)),
    Layout(shape=(3, 5), causal=True),
]
HEADS = 400


def proximity(space: ScoreSpace) -> Direction:
    return Direction(name="proximity r=1", profile=torch.exp(-space.layout.distance()))


def white(space: ScoreSpace, heads: int, seed: int) -> torch.Tensor:
    """Gaussian score gradients (1, head, query, key) whose rows sum to zero, nothing hidden."""
    g = torch.randn(1, heads, space.length, space.length, generator=torch.Generator().manual_seed(seed)).double()
    visible = space.visible(slice(0, space.length))
    return (g - (g * visible).sum(-1, keepdim=True) / visible.sum(-1, keepdim=True)) * visible


def fold(space: ScoreSpace, gradient: torch.Tensor) -> np.ndarray:
    return space.fold(gradient, slice(0, space.length)).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_norm_is_that_of_the_matrix(layout: Layout) -> None:
    profile = torch.randn(layout.offsets, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    profile *= layout.reachable()
    norm, _ = norm_and_means(ScoreSpace(layout=layout), Direction(name="x", profile=profile))
    assert centred_norm(layout, profile) == pytest.approx(norm.item(), rel=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_are_uniform_without_structure_and_extreme_along_what_was_planted(layout: Layout) -> None:
    space = ScoreSpace(layout=layout)
    gradient, direction = white(space, HEADS, seed=2), proximity(space)
    draw = np.random.default_rng(3)
    p = specificity(fold(space, gradient), direction, space, controls=199, generator=draw).p_value[0]
    assert stats.kstest(p - draw.uniform(size=HEADS) / 200, "uniform").pvalue > 0.01
    rows = slice(0, space.length)
    assert direction.profile is not None
    matrix = space.expand(direction.profile, rows) * space.visible(rows)
    found = specificity(fold(space, gradient + 30 * matrix), direction, space, controls=199, generator=draw)
    assert (found.p_value == 1 / 200).mean() > 0.9


def test_a_gradient_that_is_large_along_everything_is_not_specific() -> None:
    """A planted single far offset makes t along proximity large, and the shuffles' as large."""
    space = ScoreSpace(layout=Layout(shape=(19,)))
    profile = torch.zeros(space.layout.offsets, dtype=torch.float64)
    profile[18 + 4] = 1.0
    planted = 30 * space.expand(profile, slice(0, space.length))
    gradient = white(space, HEADS, seed=4) + planted
    found = specificity(
        fold(space, gradient), proximity(space), space, controls=199, generator=np.random.default_rng(0)
    )
    assert (found.p_value < 0.05).mean() < 0.05


@pytest.mark.parametrize("causal", [False, True])
def test_the_probe_reports_it_for_profiles(causal: bool) -> None:
    model = make_model(
        TransformerConfig(d_model=8, heads=2, d_mlp=8, causal=causal), Spec(length=13, classes=2), "values", seed=0
    )
    inputs = torch.randn(24, 13, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(24) % 2)
    result = measure(ours.of(model, split), shuffles=99)
    rows = result.select("reconstruction.specificity")
    means = {(r.direction, r.head): r.interval for r in result.select("reconstruction.mean")}
    assert {r.direction for r in rows} == {f"{kind} r={r}" for kind in ("proximity", "shuffled") for r in (1, 2, 4)}
    for row in rows:
        mean = means[row.direction, row.head]
        assert row.interval.estimate * mean.estimate > 0
        assert row.interval.low / row.interval.estimate == pytest.approx(mean.low / mean.estimate)
        assert row.interval.unit == "rms of 99 shuffled profiles"
        assert 0.01 <= (row.p_value or 0) <= 1
