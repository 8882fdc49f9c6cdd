"""Coverage of the intervals, uniformity of the nulls, and agreement with scipy where it has the same thing."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnprobe.probes.rows import Measurement, rows_to_records
from attnprobe.statistics import cosines
from attnprobe.statistics import intervals as s

DATA_SETS = 1000


def covers(band: s.Band, truth: float) -> float:
    """Share of the data sets (the last axis of the statistic) whose interval holds the truth."""
    return float(np.mean((band.low <= truth) & (truth <= band.high)))


@pytest.mark.parametrize("n", [2, 5, 10, 30, 101])
def test_a_95_percent_interval_of_a_mean_covers_95_percent(n: int) -> None:
    g = np.random.default_rng(n)
    band = s.bootstrap(g.normal(3.0, 2.0, size=(n, DATA_SETS)), generator=g, resamples=1000)
    assert 0.92 <= covers(band, 3.0) <= 0.98


@pytest.mark.parametrize("n", [10, 31, 101])
def test_a_95_percent_interval_of_a_ratio_of_means_covers_95_percent(n: int) -> None:
    g = np.random.default_rng(n)
    below = g.exponential(size=(n, DATA_SETS)) + 0.5
    above = 2 * below + g.normal(0, 0.5, size=below.shape)
    band = s.bootstrap(above, below, statistic=lambda a, b: a / b, generator=g, resamples=1000)
    assert 0.92 <= covers(band, 2.0) <= 0.98


@pytest.mark.parametrize("level", [0.5, 0.8, 0.99])
def test_other_levels_cover_as_they_say(level: float) -> None:
    g = np.random.default_rng(7)
    band = s.bootstrap(g.normal(size=(40, DATA_SETS)), generator=g, resamples=2000, level=level)
    assert abs(covers(band, 0.0) - level) < 4 * math.sqrt(level * (1 - level) / DATA_SETS) + 0.005


@pytest.mark.parametrize("n", [5, 10, 30])
def test_a_95_percent_interval_of_a_skewed_mean_covers_95_percent(n: int) -> None:
    g = np.random.default_rng(n)
    x = g.exponential(size=(n, DATA_SETS))
    assert 0.92 <= covers(s.bootstrap(x, generator=g, resamples=1000), 1.0) <= 0.98
    if n < 30:  # what the studentised bounds are for
        assert np.mean(np.abs(x.mean(0) - 1) <= stats.t.isf(0.025, n - 1) * stats.sem(x)) < 0.92


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("within", [0.3, 3.0])
def test_hierarchical_intervals_cover_the_mean_over_seeds(seeds: int, within: float) -> None:
    g = np.random.default_rng(seeds)
    centre = g.normal(1.0, 0.5, size=(seeds, DATA_SETS))
    samples = [c + g.normal(0, within, size=(20, DATA_SETS)) for c in centre]
    assert 0.92 <= covers(s.band_over_seeds(samples, generator=g, resamples=1000), 1.0) <= 0.98
    if within < 1:
        pooled = s.bootstrap(np.concatenate(samples), generator=g, resamples=400)
        assert covers(pooled, 1.0) < 0.9  # forgetting the seeds does not cover


def test_few_seeds_are_a_t_interval_of_their_estimates() -> None:
    g = np.random.default_rng(0)
    samples = [g.exponential(size=n) + c for n, c in [(7, 0.0), (11, 1.0), (5, 0.3), (13, 0.1)]]
    band = s.band_over_seeds(samples, statistic=np.sqrt, generator=g, resamples=100_000)
    estimates = [math.sqrt(x.mean()) for x in samples]
    reference = stats.ttest_1samp(estimates, 0.0).confidence_interval(0.95)
    assert band.estimate == pytest.approx(np.mean(estimates), abs=1e-12)
    assert [band.low, band.high] == pytest.approx([reference.low, reference.high], rel=0.02)


def test_one_odd_seed_of_ten_gives_no_absurd_interval() -> None:
    values = [1.63, 1.6, 1.78, 1.79, 1.78, 1.65, 1.67, 1.79, -0.25, 1.73]
    band = s.band_over_seeds([np.array([v]) for v in values], generator=np.random.default_rng(0))
    reference = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (band.low, band.high) == pytest.approx(tuple(reference))
    assert min(values) < band.low


def test_percentiles_agree_with_scipy_at_the_widened_level() -> None:
    g = np.random.default_rng(3)
    x = g.exponential(size=23)
    outside = stats.norm.sf(stats.t.isf(0.025, 22) * math.sqrt(23 / 22))
    reference = stats.bootstrap(
        (x,),
        lambda v, axis: np.log(np.mean(v, axis=axis)),
        confidence_level=1 - 2 * outside,
        n_resamples=60_000,
        method="percentile",
        rng=g,
    )
    drawn = np.log(g.choice(x, size=(60_000, 23)).mean(1))
    band = s.band_from_replicates(np.log(x.mean()), drawn, level=0.95, n=23)
    width = band.high - band.low
    assert band.low == pytest.approx(reference.confidence_interval.low, abs=0.03 * width)
    assert band.high == pytest.approx(reference.confidence_interval.high, abs=0.03 * width)


def test_bounds_agree_with_a_loop_that_studentises_every_resample() -> None:
    g = np.random.default_rng(4)
    x = g.exponential(size=(12, 2)) + np.array([0.2, 1.0])

    def log_ratio(x: np.ndarray) -> tuple[float, float]:
        """Its value, and its error by hand: the gradient of log(a / b) is (1 / a, -1 / b)."""
        a, b = x.mean(0)
        return math.log(a / b), math.sqrt(np.var(x[:, 0] / a - x[:, 1] / b, ddof=0) / (len(x) - 1))

    estimate, error = log_ratio(x)
    loop = []
    for _ in range(20_000):
        value, its_error = log_ratio(x[g.integers(12, size=12)])
        loop.append((value - estimate) / its_error)
    below, above = np.quantile(loop, [0.025, 0.975])
    band = s.bootstrap(x[:, 0], x[:, 1], statistic=lambda a, b: np.log(a / b), generator=g, resamples=40_000).interval(
        unit=""
    )
    width = band.high - band.low
    assert band.estimate == pytest.approx(estimate)
    assert band.low == pytest.approx(estimate - above * error, abs=0.03 * width)
    assert band.high == pytest.approx(estimate - below * error, abs=0.03 * width)


@pytest.mark.parametrize("n", [30, 60, 200])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.98])
def test_a_share_is_covered_however_near_to_one(n: int, share: float) -> None:
    g = np.random.default_rng(n)
    correct = g.random((n, DATA_SETS)) < share
    assert 0.92 <= covers(s.bootstrap(correct, generator=g, resamples=100), share) <= 0.99
    mixed = correct.any(0) & ~correct.all(0)  # as numbers, all of them right could be anything
    band = s.bootstrap(correct.astype(float)[:, mixed], generator=g, resamples=100)
    for i, right in enumerate(correct.sum(0)[mixed][:20]):
        wanted = stats.binomtest(int(right), n).proportion_ci(method="wilson")
        assert (band.low[i], band.high[i]) == pytest.approx((wanted.low, wanted.high))


def test_only_booleans_are_shares_if_all_are_equal() -> None:
    g = np.random.default_rng(0)
    numbers, booleans = (s.bootstrap(x, generator=g).interval(unit="") for x in (np.ones(200), np.ones(200, bool)))
    assert (numbers.low, numbers.high) == pytest.approx((1.0, 1.0), abs=1e-12)
    assert booleans.low == pytest.approx(200 / (200 + stats.norm.isf(0.025) ** 2))
    assert booleans.high == 1.0
    some = np.ones((200, 2))
    some[:7, 0], some[:7, 1] = 0.0, 0.5  # two values, but no share
    resampled = s.bootstrap(some, generator=np.random.default_rng(0))
    alone = s.bootstrap(some[:, 1:] * 2, generator=np.random.default_rng(0))
    assert resampled.low[1] == pytest.approx(alone.low[0] / 2)


@pytest.mark.parametrize("name", ["normal", "exponential", "lognormal", "ratio"])
def test_bounds_are_wider_where_the_statistic_is_skewed_and_cover(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, g = 30, np.random.default_rng(1)
    x = g.normal(size=(n, DATA_SETS)) if name == "normal" else getattr(g, name.replace("ratio", "exponential"))(
        size=(n, DATA_SETS)
    )  # fmt: skip
    if name == "ratio":  # added by each unit to the linearised ratio: (a - r b) / mean b
        samples = x * (1 + g.exponential(size=x.shape)), x
        added = samples[0] - samples[0].mean(0) / x.mean(0) * x
        statistic, truth = np.divide, 2.0
    else:
        samples, added, statistic = (x,), x, s.mean
        truth = {"normal": 0.0, "exponential": 1.0, "lognormal": math.exp(0.5)}[name]
    np.testing.assert_allclose(s.skewness(statistic, samples), stats.skew(added), rtol=1e-4, atol=1e-6)
    band = s.bootstrap(*samples, statistic=statistic, generator=np.random.default_rng(2), resamples=1000)
    assert 0.92 <= covers(band, truth) <= 0.975
    monkeypatch.setattr(s, "skewness", lambda *_: 0.0)
    plain = s.bootstrap(*samples, statistic=statistic, generator=np.random.default_rng(2), resamples=1000)
    for bound in ("low", "high"):
        ratio = (getattr(band, bound) - band.estimate) / (getattr(plain, bound) - plain.estimate)
        np.testing.assert_allclose(ratio, 1 + stats.skew(added) ** 2 / n, rtol=1e-3)


def test_degenerate_samples_have_a_definite_meaning() -> None:
    g = np.random.default_rng(0)
    one = s.bootstrap(np.array([2.0]), generator=g).interval(unit="nats")
    assert one.estimate == 2.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    for n in (3, 20):
        equal = s.bootstrap(np.full(n, 2.0), generator=g).interval(unit="nats")
        assert (equal.estimate, equal.low, equal.high) == pytest.approx((2.0, 2.0, 2.0), abs=1e-12)
    undefined = s.bootstrap(np.zeros(20), statistic=lambda m: np.where(m == 0, np.nan, m), generator=g)
    assert np.isnan([undefined.estimate, undefined.low, undefined.high]).all()
    single_seed = s.band_over_seeds([np.arange(9.0)], generator=g)
    assert single_seed.estimate == 4.0
    assert np.isnan(single_seed.low)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_bounds_enclose_the_estimate_and_scale_with_the_data(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=n)
    band = s.bootstrap(x, generator=np.random.default_rng(1), resamples=500)
    assert band.low <= band.estimate <= band.high
    scaled = s.bootstrap(3 * x + 5, generator=np.random.default_rng(1), resamples=500)
    assert scaled.low == pytest.approx(3 * band.low + 5, abs=1e-9)
    assert scaled.high == pytest.approx(3 * band.high + 5, abs=1e-9)


def corrected_cosine(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> s.Interval:
    return cosines.noise_corrected_cosine_from_products(x @ x.T, y @ y.T, x @ y.T, generator=generator, resamples=300)


def test_noise_corrected_cosine_finds_the_cosine_of_the_means() -> None:
    d, n, truth = 50, 40, 0.6
    a = np.zeros(d)
    b = np.zeros(d)
    a[0] = 1.0
    b[:2] = truth, math.sqrt(1 - truth**2)
    g = np.random.default_rng(5)
    found, plain, covered = [], [], []
    for _ in range(200):
        shared = g.normal(0, 0.4, size=(n, d))  # noise common to both would fake agreement
        x, y = a + shared + g.normal(0, 0.5, (n, d)), b + shared + g.normal(0, 0.5, (n, d))
        interval = corrected_cosine(x, y, g)
        found.append(interval.estimate)
        covered.append(interval.low <= truth <= interval.high)
        plain.append(x.mean(0) @ y.mean(0) / np.linalg.norm(x.mean(0)) / np.linalg.norm(y.mean(0)))
    spread = np.std(found) / math.sqrt(200)
    assert abs(np.mean(found) - truth) < 4 * spread + 0.005
    assert abs(np.mean(plain) - truth) > 5 * spread  # what the correction is for
    assert 0.9 <= np.mean(covered) <= 0.99


def test_noise_corrected_cosine_is_the_average_over_split_halves() -> None:
    g = np.random.default_rng(6)
    x, y = g.normal(1, 1, size=(6, 3)), g.normal(1, 1, size=(6, 3))
    found = corrected_cosine(x, y, g).estimate
    products = np.zeros(3)
    for code in range(2**6):
        half = np.array([code >> i & 1 for i in range(6)], dtype=bool)
        if half.sum() == 3:
            for k, (u, v) in enumerate([(x, x), (y, y), (x, y)]):
                products[k] += u[half].mean(0) @ v[~half].mean(0)
    assert found == pytest.approx(products[2] / math.sqrt(products[0] * products[1]), rel=1e-12)


def test_an_unresolved_mean_has_no_cosine() -> None:
    x = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert math.isnan(corrected_cosine(x, x, np.random.default_rng(0)).estimate)


def test_records_are_tidy_and_strict_json() -> None:
    interval = s.Interval(estimate=1.5, low=math.nan, high=math.inf, level=0.95, n=1, unit="nats")
    rows = [Measurement(layer=0, head=2, quantity="entropy", interval=interval)]
    (record,) = rows_to_records(rows, "final")
    keys = ["checkpoint", "layer", "head", "quantity", "estimate", "low", "high", "level", "n", "unit", "p_value"]
    assert list(record) == keys
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["estimate"], record["low"], record["high"], record["p_value"]) == (1.5, None, None, None)
    assert str(interval).endswith("nats")
