"""A profile against its shuffled controls: what the interval holds, what the p-value asks, and an injected profile."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.interventions.probe import DoseResponse, dose_response, evaluate
from attnprobe.probes.interventions.profiles import offset_profile, score_offsets, shuffled_profiles
from attnprobe.scores.shuffled_profiles import shuffled_profile
from attnprobe.statistics.permutations import rank_p_value
from attnprobe.statistics.two_way import two_way_interval
from attnprobe.streams import stream
from attnprobe.tasks import Spec, Split

REPLICAS = 1000


def make_case(n: int = 23, seed: int = 2) -> Ours:
    """An untrained model with scores that matter, and n fresh sequences."""
    model = make_model(TransformerConfig(d_model=8, heads=2, d_mlp=7), Spec(length=11, classes=3), "values", seed=1)
    with torch.no_grad():
        for p in (model.blocks[0].attention.q.weight, model.blocks[0].attention.k.weight):
            p.mul_(6)
        model.label_head.weight.mul_(20)
    inputs = torch.randn(n, 11, 1, generator=torch.Generator().manual_seed(seed))
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(n) % 3))


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("draws", [0.0, 0.1, 0.4])
def test_an_interval_over_units_and_draws_covers(n: int, draws: float) -> None:
    """20 draws; spread of units 0.5, of draws as given, of what is left 1. Over units alone it does not."""
    g, k = np.random.default_rng(n), 20
    both = alone = 0
    for _ in range(REPLICAS):
        units = 0.5 * g.standard_normal((n, 1))
        values = units + draws * g.standard_normal((1, k)) + g.standard_normal((n, k))
        found = two_way_interval(values, level=0.95, unit="loss")
        both += found.low <= 0 <= found.high
        mean = values.mean(1)
        alone += abs(mean.mean()) <= 2.1 * mean.std(ddof=1) / np.sqrt(n)
    assert 0.93 <= both / REPLICAS <= 0.975
    if draws == 0.4:
        assert alone / REPLICAS < 0.9


@pytest.mark.parametrize(("n", "k"), [(40, 3), (40, 20), (100, 5)])
def test_an_interval_of_rare_changes_covers(n: int, k: int) -> None:
    """2 % improve by the profile, 2 % fall by a shuffle, each in half of the shuffles; without ``rare`` it does not."""
    g, covered = np.random.default_rng(n + k), {True: 0, False: 0}
    for _ in range(REPLICAS):
        own, fallible = g.random((n, 1)) < 0.02, g.random((n, 1)) < 0.04
        values = own + 1.0 * (fallible & (g.random((n, k)) < 0.5))
        for rare in covered:
            found = two_way_interval(values, level=0.95, unit="accuracy", rare=rare)
            covered[rare] += found.low <= 0.04 <= found.high
    assert covered[True] / REPLICAS >= 0.93
    assert covered[False] / REPLICAS < 0.93


def test_the_error_of_a_mean_over_units_and_draws_is_that_of_the_layout() -> None:
    """Against the components of variance by their definition, pair by pair of units and of draws."""
    n, k = 7, 5
    values = np.random.default_rng(0).standard_normal((n, k)) + np.arange(n)[:, None] + 0.7 * np.arange(k) ** 2
    centred = values - values.mean()
    # Covariance of two entries: in one unit, in one draw; of an entry with itself (unbiased, by pairs of differences).
    rest = np.mean([
        (values[i, j] - values[i, m] - values[h, j] + values[h, m]) ** 2 / 4
        for i in range(n) for h in range(n) for j in range(k) for m in range(k) if i != h and j != m
    ])  # fmt: skip
    of_units = centred.mean(1).var(ddof=1) - rest / k
    of_draws = centred.mean(0).var(ddof=1) - rest / n
    wanted = np.sqrt(of_units / n + of_draws / k + rest / (n * k))
    found = two_way_interval(values, level=0.95, unit="")
    assert found.estimate == pytest.approx(values.mean())
    margin = (found.high - found.low) / 2
    assert 1.96 * wanted < margin < 12.71 * wanted  # between the normal quantile and t of one degree of freedom
    wide = two_way_interval(values, level=0.99, unit="")
    assert wide.high - wide.low > found.high - found.low
    one = two_way_interval(values[:, :1], level=0.95, unit="")
    assert np.isnan([one.low, one.high]).all()
    same = two_way_interval(np.full((n, k), 0.25), level=0.95, unit="")
    assert (same.low, same.estimate, same.high) == (0.25, 0.25, 0.25)


def test_a_draw_among_draws_has_uniform_p_values() -> None:
    g = np.random.default_rng(3)
    values = g.exponential(size=(20, 4000))
    p = rank_p_value(values[0], values[1:], centre=np.mean)
    assert set(np.round(p * 20, 9)) == set(range(1, 21))
    for level in (0.05, 0.1, 0.5):
        assert np.mean(p <= level + 1e-12) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 4000))
    assert rank_p_value(9.0, np.arange(19.0) / 19, centre=np.mean) == pytest.approx(0.05)
    assert rank_p_value(0.0, np.zeros(19), centre=np.mean) == 1.0


def at(result: DoseResponse, quantity: str, kind: str, dose: float):
    (row,) = [r for r in result.select(quantity, kind) if r.dose == dose]
    return row


def test_paired_rows_are_own_minus_the_mean_of_the_shuffled_ones() -> None:
    subject, every = make_case(), np.arange(23)
    result = dose_response(subject, doses=(-1.0, 0.0), controls=4, seed=7)
    own = offset_profile(subject, every)
    changed = [
        evaluate(subject, every, "label", offsets=score_offsets(subject, -p), batch=5)["loss"]
        for p in (own, *shuffled_profiles(subject.space, own, 4, 7))
    ]
    row = at(result, "loss.change", "own - shuffled", -1.0)
    wanted = two_way_interval((changed[0] - np.array(changed[1:])).T, level=0.95, unit="loss")
    for bound in ("estimate", "low", "high"):
        assert getattr(row.interval, bound) == pytest.approx(getattr(wanted, bound), rel=1e-4, abs=1e-7)
    assert (row.controls, row.interval.n) == (4, 23)
    assert row.p_value in [pytest.approx(count / 5) for count in range(1, 6)]
    single, control = (at(result, "loss.change", kind, -1.0).interval.estimate for kind in ("own", "shuffled"))
    assert row.interval.estimate == pytest.approx(single - control, rel=1e-6)
    zero = at(result, "loss.change", "own - shuffled", 0.0)
    assert (zero.interval.low, zero.interval.high, zero.p_value) == (0.0, 0.0, None)
    assert {r["controls"] for r in result.records("x")} == {None, 4}


def test_an_injected_profile_is_added_whole_at_any_dose() -> None:
    subject, every = make_case(), np.arange(23)
    given = torch.randn(offset_profile(subject, every).shape, generator=torch.Generator().manual_seed(5)).double()
    result = dose_response(subject, doses=(0.5, 1.0), controls=3, given=given)
    for dose in (0.5, 1.0):
        offsets = score_offsets(subject, dose * given)
        wanted = evaluate(subject, every, "label", offsets=offsets, batch=9)["loss"].mean()
        assert at(result, "loss", "injected", dose).interval.estimate == pytest.approx(wanted, rel=1e-6)
        control = [
            evaluate(subject, every, "label", offsets=score_offsets(subject, dose * p), batch=9)["loss"].mean()
            for p in shuffled_profiles(subject.space, given, 3, 0)
        ]
        found = at(result, "loss", "injected shuffled", dose).interval.estimate
        assert found == pytest.approx(np.mean(control), rel=1e-6)
        assert at(result, "loss.change", "injected - shuffled", dose).controls == 3
    clamp = at(result, "loss", "clamp", 1.0).interval.estimate
    assert clamp != pytest.approx(at(result, "loss", "injected", 1.0).interval.estimate, rel=1e-4)


@pytest.mark.slow
def test_a_profile_that_is_a_shuffle_is_told_from_shuffles_as_often_as_the_level_says() -> None:
    """80 replicas with fresh sequences and shuffles; four standard errors around .05 and .5."""
    base, p = make_case(), []
    own = offset_profile(base, np.arange(23))
    for replica in range(80):
        fake = shuffled_profile(base.space, own, stream(replica, "no profile of its own"))
        found = dose_response(make_case(7, replica), doses=(1.0,), controls=19, given=fake, seed=replica)
        p.append(at(found, "loss.change", "injected - shuffled", 1.0).p_value)
    assert np.mean(np.array(p) <= 0.05 + 1e-12) <= 0.05 + 4 * 0.0244
    assert np.mean(np.array(p) <= 0.5 + 1e-12) == pytest.approx(0.5, abs=4 * 0.0559)


def test_what_has_no_spread_is_refused() -> None:
    subject = make_case()
    for controls in (0, 1):
        with pytest.raises(ConfigError, match=f"controls must be at least 2, .*got {controls}"):
            dose_response(subject, controls=controls)
    for doses in ((), (1.0, math.nan), (math.inf,)):
        with pytest.raises(ConfigError, match="doses must be finite numbers"):
            dose_response(subject, doses=doses)
    with pytest.raises(NotApplicableError, match="the loss is NaN or infinite"):
        dose_response(subject, doses=(1e308,), controls=2)
    split = subject.split
    same = dataclasses.replace(
        split, inputs=split.inputs[:1].expand(23, -1, -1), labels=torch.zeros(23, dtype=torch.int64)
    )
    with pytest.raises(NotApplicableError, match="the loss of all 23 sequences is"):
        dose_response(ours.of(subject.model, same))
