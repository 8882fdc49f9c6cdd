"""p-values of proximity: W_Q and W_K drawn anew, keys permuted, and the largest of heads and of seeds."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.capture import ours
from attnprobe.capture.arrays import arrays
from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import proximity
from attnprobe.probes.proximity.nulls import Null, null_samples
from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import contrast_keys
from attnprobe.statistics.key_permutation import KeyPermutationNull
from attnprobe.statistics.permutations import least_draws, permutation_p_value, rank_p_value
from attnprobe.tasks import Spec, Split

LENGTH, WIDTH, N = 17, 12, 11


def make(seed: int = 0, *, n: int = N, padded: bool = False, grid: bool = False, **settings: object) -> ours.Ours:
    """An untrained model on white noise."""
    spec = Spec(length=15, classes=2, grid=(3, 5)) if grid else Spec(length=LENGTH, classes=2)
    config = TransformerConfig(d_model=WIDTH, heads=3, d_mlp=10, **settings)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(9, spec.length + 1, (n,), generator=g) if padded else None
    split = Split(inputs=torch.randn(n, spec.length, 1, generator=g), labels=torch.arange(n) % 2, lengths=lengths)
    return ours.of(make_model(config, spec, "values", seed=seed), split)


@pytest.mark.parametrize("settings", [{}, {"padded": True}, {"causal": True}, {"grid": True}, {"readout": "token"}])
@pytest.mark.parametrize("include_self", [True, False])
def test_the_null_measures_the_same_bias_as_the_probe(settings: dict, include_self: bool) -> None:
    subject = make(layers=2, **settings).double()
    found = proximity.measure(subject, draws=19, include_self=include_self, seed=5)
    assert found.null is not None
    assert (found.null.name, found.null.samples, found.null.drawn.shape) == ("init", N, (19, 6))
    rows = [row for row in found.rows if row.quantity == "proximity_bias"]
    np.testing.assert_allclose(found.null.observed, [row.interval.estimate for row in rows], rtol=1e-5)
    redrawn = subject.redrawn(41)
    again = proximity.measure(redrawn, null="none", include_self=include_self)
    assert [row.interval.estimate for row in again.rows] != [row.interval.estimate for row in found.rows]
    assert {row.null for row in rows} == {"init"}
    assert {row.p_value for row in again.rows} == {row.null for row in again.rows} == {None}


@pytest.mark.parametrize("init", ["independent", "tied"])
def test_w_q_and_w_k_of_all_layers_are_drawn_as_at_the_start_and_all_else_is_shared(init: str) -> None:
    subject = make(layers=2, init=init)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    first, second, same = (subject.redrawn(seed).model.state_dict() for seed in (0, 1, 0))
    for name, tensor in subject.model.state_dict().items():
        assert torch.equal(tensor, before[name])
        if ".attention.q." not in name and ".attention.k." not in name:
            assert first[name].data_ptr() == tensor.data_ptr()
            continue
        assert torch.equal(first[name], same[name])
        for other in (tensor, second[name]):
            assert not torch.equal(first[name], other)
        assert first[name].abs().max() <= 1 / math.sqrt(WIDTH)
        if init == "tied":
            assert torch.equal(first[name.replace(".k.", ".q.")], first[name])
    weights = torch.cat([subject.redrawn(seed).projections()[1][0].flatten() for seed in range(20)])
    assert (
        stats.kstest(weights.detach().numpy(), stats.uniform(-1 / math.sqrt(WIDTH), 2 / math.sqrt(WIDTH)).cdf)[1] > 0.01
    )
    assert torch.equal(before["blocks.0.attention.v.weight"], before["blocks.0.attention.q.weight"]) == (init == "tied")


def test_models_share_no_draws_which_would_tie_the_nulls_of_pooled_seeds_together() -> None:
    first, second = (make(seed).redrawn(0).projections()[0][0].detach().flatten() for seed in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.3
    redrawn = [proximity.measure(make(seed), draws=99).null for seed in (0, 1)]
    largest = [null.largest(slice(0, 3))[1] for null in redrawn if null]
    assert abs(stats.pearsonr(*largest).statistic) < 0.3


def test_a_subject_without_weights_has_no_null_unless_it_is_asked_for_permuted_keys() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 7, 3, 11, 5))
    subject = arrays(q, k)
    assert {row.null for row in proximity.measure(subject).rows} == {None}
    assert "keys" in {row.null for row in proximity.measure(subject, null="keys").rows}
    with pytest.raises(NotApplicableError, match="cannot be drawn anew") as caught:
        proximity.measure(subject, null="init")
    assert "keys" in caught.value.hint


def test_too_few_draws_for_the_level_are_refused() -> None:
    assert [least_draws(level) for level in (0.5, 0.9, 0.95, 0.99, 0.999)] == [1, 9, 19, 99, 999]
    with pytest.raises(ConfigError, match=r"draws must be at least 99 for a p-value of 0.01, got 98"):
        proximity.measure(make(), level=0.99, draws=98)
    for level, draws in ((0.95, 99), (0.999, 999)):
        found = proximity.measure(make(), level=level, null="keys")
        assert found.null is not None
        assert len(found.null.drawn) == draws


def test_p_values_of_heads_and_of_the_largest_by_hand() -> None:
    drawn = np.array([[0.0, 1.0], [0.1, 3.0], [0.2, 2.0], [0.3, -5.0]])
    null = Null(name="init", observed=np.array([-1.0, 2.5]), drawn=drawn, samples=1)
    # around the medians .1 and 2 the first is the furthest; -5 and 3 are further from 2 than 2.5, 1 as well
    assert null.p_values().tolist() == [1 / 5, 4 / 5]
    assert null.p_value_of_largest(slice(0, 2)) == 2 / 5  # 2.5 against 1, 3, 2, 0.3
    assert null.p_value_of_largest(slice(0, 1)) == 1.0


def test_p_values_around_an_unknown_centre_are_uniform_though_the_null_is_skewed() -> None:
    values = np.random.default_rng(0).exponential(size=(40, 20_000)) ** 2
    p = rank_p_value(values[0], values[1:])
    for alpha in (0.05, 0.1, 0.5):
        assert np.mean(p <= alpha) == pytest.approx(alpha, abs=4 * math.sqrt(alpha / 20_000))


def test_samples_of_the_null_are_spread_over_all_and_fewer_where_sequences_are_long() -> None:
    samples = np.arange(3, 503)
    assert len(null_samples(samples, 100)) == 63
    assert null_samples(samples, 100)[[0, -1]].tolist() == [3, 499]
    assert len(null_samples(samples, 1024)) == 8
    assert null_samples(samples, 10**6).tolist() == [3]
    assert null_samples(samples[:5], 100).tolist() == [3, 4, 5, 6, 7]


def test_progress_counts_the_redraws() -> None:
    seen: list[tuple[int, int]] = []
    proximity.measure(make(), draws=19, progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {N + 20 * N}
    assert seen[-1] == (N + 20 * N, N + 20 * N)
    assert len(seen) == 21


def test_pooled_maxima_have_a_null_of_their_own() -> None:
    results = [proximity.measure(make(seed, layers=2), draws=19, seed=seed) for seed in range(4)]
    rows = {(row.quantity, row.layer): row for row in proximity.pool(results)}
    assert {layer for quantity, layer in rows if quantity == "entropy.mean"} == {0, 1, None}
    nulls = [result.null for result in results]
    largest = np.array([null.observed[3:].max() for null in nulls if null])
    drawn = np.array([null.drawn[:, 3:].max(1) for null in nulls if null])
    row, beyond = rows["proximity_bias.max", 1], rows["proximity_bias.max_beyond_null", 1]
    assert row.interval.estimate == pytest.approx(largest.mean(), rel=1e-5)
    assert row.p_value == pytest.approx((1 + (drawn.mean(0) >= largest.mean()).sum()) / 20)
    assert row.null == "init"
    assert beyond.interval.estimate == pytest.approx((largest - drawn.mean(1)).mean(), rel=1e-5)
    reference = stats.ttest_1samp(largest - drawn.mean(1), 0).confidence_interval(0.95)
    assert (beyond.interval.low, beyond.interval.high) == pytest.approx(tuple(reference), rel=0.05)
    without = proximity.pool([results[0], proximity.measure(make(1, layers=2), null="none")])
    assert {row.null for row in without} == {None}
    assert not [row for row in without if "null" in row.quantity]


@pytest.mark.parametrize("padded", [False, True])
def test_the_null_recomputes_the_contrast_for_every_permutation(padded: bool) -> None:
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(3, 2, 11, 5, generator=g, dtype=torch.float64) for _ in range(2))
    layout = Layout(shape=(11,))
    valid = torch.arange(11) < torch.tensor([[11], [5], [8]]) if padded else None
    near = (layout.distance() <= 2).double()
    u = contrast_keys(q, near, layout, scale=1.0, valid=valid)
    nulls = []
    for matrix in (False, True):
        null = KeyPermutationNull(11, 9, matrix=matrix, generator=np.random.default_rng(0))
        null.add(0, u, k, valid)
        orders = list(null._orders())
        nulls.append(null.finish())
    np.testing.assert_allclose(nulls[0][1], nulls[1][1], rtol=1e-10, atol=1e-10)
    for r, order in enumerate([torch.arange(11), *orders]):
        total = torch.zeros(2, dtype=torch.float64)
        for s in range(3):
            real = torch.arange(11) if valid is None else valid[s].nonzero()[:, 0]
            mine = order[torch.isin(order, real)]
            scores = q[s][:, real] @ k[s][:, mine].mT
            centred = scores - scores.mean(-1, keepdim=True)
            total += (centred * ((real[:, None] - real).abs() <= 2)).sum((-2, -1))
        found = nulls[0][0] if r == 0 else nulls[0][1][r - 1]
        np.testing.assert_allclose(found, total, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_p_values_are_uniform_if_keys_know_nothing_of_their_positions(causal: bool) -> None:
    g = torch.Generator().manual_seed(3)
    heads, length = 600, 17
    layout = Layout(shape=(length,), causal=causal)
    # Keys share a part per position over the sequences, and queries likewise: only their order is random.
    q, k = (
        torch.randn(1, heads, length, 3, generator=g) + 0.5 * torch.randn(4, heads, length, 3, generator=g)
        for _ in range(2)
    )
    u = contrast_keys(q, (layout.distance() <= 2).double(), layout, scale=1.0)
    null = KeyPermutationNull(length, 199, matrix=True, generator=np.random.default_rng(0))
    null.add(0, u, k, None)
    p = permutation_p_value(*null.finish())
    assert stats.kstest(p - np.random.default_rng(1).uniform(size=heads) / 200, "uniform").pvalue > 0.01


def planted(subject: ours.Ours, size: float) -> ours.Ours:
    """W_Q and W_K that compare channels with themselves: near positions have like sinusoids, so they score high."""
    with torch.no_grad():
        for weight in subject.projections()[0]:
            weight += size * torch.eye(WIDTH)
    return subject


def rejected(subjects: list[Subject]) -> tuple[float, float]:
    """Share of heads, and of models by their largest head, with p <= .05."""
    results = [proximity.measure(subject, draws=19, seed=seed) for seed, subject in enumerate(subjects)]
    tested = [row for result in results for row in result.rows if row.p_value is not None]
    heads, models = ([r.p_value for r in tested if (r.head is None) == largest] for largest in (False, True))
    return float(np.mean(np.array(heads) <= 0.05)), float(np.mean(np.array(models) <= 0.05))


@pytest.mark.slow
def test_false_positives_and_power() -> None:
    models = 60
    heads, largest = rejected([make(seed) for seed in range(models)])
    assert largest <= stats.binom.isf(0.001, models, 0.05) / models
    assert heads <= stats.binom.isf(0.001, 3 * models, 0.05) / (3 * models)
    assert rejected([planted(make(seed), 2.0) for seed in range(10)])[1] >= 0.5
