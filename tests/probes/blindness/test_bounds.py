"""What the certificate rests on: the family-wise p-values and the bounds of ratios, against simulations."""

import numpy as np
import pytest
from scipy import stats

from attnprobe.probes.alignment.labels import label_dependence, shuffled_means
from attnprobe.probes.alignment.rows import Settings
from attnprobe.probes.blindness.rows import BlindnessRow, answer
from attnprobe.statistics.intervals import Interval
from attnprobe.statistics.permutations import family_wise_p_values, permutation_p_value
from attnprobe.statistics.ratios import simultaneous_ratio_bounds
from attnprobe.streams import stream


def group_differences(seed: int, statistics: int, shared: float, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Differences of two groups' means under the true and under shuffled labels; statistics of very unlike sizes."""
    draws = stream(seed, "values")
    labels = np.arange(30) % 2 * 2.0 - 1
    values = np.sqrt(1 - shared) * draws.standard_normal((30, statistics))
    values += np.sqrt(shared) * draws.standard_normal((30, 1))
    values[:, 0] += effect * labels
    values *= 10.0 ** np.arange(statistics)
    shuffled = draws.permuted(np.tile(labels, (99, 1)), axis=1)
    values = values - values.mean(0)
    return labels @ values / 30, shuffled @ values / 30


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_family_without_effect_has_a_small_p_value_as_often_as_it_says(shared: float) -> None:
    smallest = [family_wise_p_values(*group_differences(seed, 7, shared)).min() for seed in range(400)]
    alone = [permutation_p_value(*group_differences(seed, 7, shared)).min() for seed in range(100)]
    for level in (0.05, 0.2):
        hits = sum(p <= level for p in smallest)
        assert stats.binomtest(hits, 400, level).pvalue > 1e-3
    assert np.mean(np.array(alone) <= 0.05) > 0.1  # what adjusting is for


@pytest.mark.parametrize("planted", [0.0, 0.8])
def test_labels_are_seen_at_the_level_and_planted_ones_nearly_always(planted: float) -> None:
    """From derivatives of three logits at 28 correlated places: labels at random, or drawn by the logits of one."""
    seen, sets = 0, 1000 if planted == 0 else 60
    for seed in range(sets):
        draws = stream(seed, "derivatives")
        values = draws.standard_normal((60, 3, 6)) @ draws.standard_normal((6, 28))
        labels = (planted * values[:, :, 0] + draws.gumbel(size=(60, 3))).argmax(1)
        null = shuffled_means(values, labels, 99, stream(seed, "shuffles"))
        seen += family_wise_p_values(label_dependence(values, labels).mean(0), null).min() <= 0.05
    if planted:
        assert seen / sets > 0.9
    else:
        assert stats.binomtest(int(seen), sets, 0.05).pvalue > 1e-3


def test_only_the_statistic_with_the_effect_is_found() -> None:
    p = np.mean(
        [family_wise_p_values(*group_differences(seed, 5, 0.0, effect=1.0)) <= 0.05 for seed in range(60)], axis=0
    )
    assert p[0] > 0.8
    assert p[1:].max() < 0.15


def test_a_statistic_without_spread_is_no_evidence() -> None:
    observed, null = group_differences(0, 3, 0.0)
    with_constant = family_wise_p_values(np.append(observed, 0.0), np.column_stack([null, np.zeros(99)]))
    assert with_constant[:3] == pytest.approx(family_wise_p_values(observed, null))
    assert with_constant[3] == 1


@pytest.mark.parametrize("skewed", [False, True])
def test_all_ratios_lie_below_their_bounds_as_often_as_the_level_says(skewed: bool) -> None:
    draws, covered, finite = stream(3, "ratios"), 0, 0
    ratio, pull = np.linspace(0.1, 0.6, 5), np.array([2.0, -1.0, 0.7, 1.5, -0.8])
    for _ in range(200):
        noise = 0.8 * draws.standard_normal((60, 5)) + 0.6 * draws.standard_normal((60, 1))
        other = draws.standard_normal((60, 5)) + 0.5 * noise
        if skewed:
            noise, other = np.exp(noise) - np.exp(0.5), other
        bounds = simultaneous_ratio_bounds(
            ratio * pull * [1, -1, 1, 1, -1] + noise, pull + other, resamples=500, generator=draws
        )
        covered += bool((ratio <= bounds.high).all())
        finite += np.isfinite(bounds.high).sum()
        assert (bounds.estimate <= bounds.high).all()
    assert covered / 200 >= 0.93
    assert finite > 900


def test_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    draws = stream(0, "nothing")
    label, pull = draws.standard_normal((2, 50, 3))
    pull[:, 0] += 9
    pull[:, 2] = 0
    bounds = simultaneous_ratio_bounds(label, pull, generator=draws)
    assert np.isfinite(bounds.high).tolist() == [True, False, False]
    assert bounds.high[0] < 0.1
    assert np.isinf(bounds.estimate[2])


@pytest.mark.parametrize(("p", "blind"), [(0.1, False), (0.101, True)])
def test_a_p_value_at_the_level_ends_blindness(p: float, blind: bool) -> None:
    interval = Interval(estimate=1.0, low=0.5, high=2.0, level=0.9, n=9, unit="")
    rows = [
        BlindnessRow(
            layer=0, head=0, quantity="slope", interval=interval, loss="label", family="blind", family_p=p, agrees=True
        )
    ]
    found = answer("blind", rows, Settings(shuffles=999, level=0.9, seed=0))
    assert found is not None
    assert found.blind is blind
