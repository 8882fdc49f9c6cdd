"""The proximity probe against the definitions, computed from dense float64 matrices."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.capture.arrays import arrays
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import AttentionCall, Transformer, TransformerConfig, make_model
from attnprobe.probes.proximity.probe import Proximity, measure
from attnprobe.statistics.bands import RatioBands
from attnprobe.tasks import Spec, Split

N = 7
SEQUENCE = Spec(length=13, classes=2, vocabulary=11)
GRID = Spec(length=15, classes=2, grid=(3, 5))
PAIRS = Spec(length=11, classes=2, vocabulary=7, pairs=True)


def make_split(spec: Spec, padded: bool, seed: int = 0) -> Split:
    g = torch.Generator().manual_seed(seed)
    shape = (N, 2, spec.length) if spec.pairs else (N, spec.length)
    if spec.is_tokens:
        inputs = torch.randint(1, spec.vocabulary or 0, shape, generator=g)
    else:
        inputs = torch.randn(*shape, spec.channels, generator=g, dtype=torch.float64)
    lengths = torch.randint(4, spec.length + 1, shape[:-1], generator=g) if padded else None
    return Split(inputs=inputs, labels=torch.zeros(N, dtype=torch.int64), lengths=lengths)


def make(spec: Spec, **settings: object) -> Transformer:
    config = TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=8, **settings)  # type: ignore[arg-type]
    model = make_model(config, spec, "classes" if spec.is_tokens else "values", seed=1).double()
    with torch.no_grad():  # scores of order one, or every pattern would be nearly uniform
        for name, parameter in model.named_parameters():
            if ".q." in name or ".k." in name:
                parameter *= 3
    return model


def run(model: Transformer, split: Split, seed: int = 0, **settings: object) -> Proximity:
    settings = {"null": "keys", "draws": 19, **settings}
    return measure(ours.of(model, split), seed=seed, **settings)  # type: ignore[arg-type]


def estimates(result: Proximity, quantity: str) -> Tensor:
    values = [row.interval.estimate for row in result.rows if row.quantity == quantity]
    return torch.tensor(values, dtype=torch.float64).view(-1, 3)


def dense(model: Transformer, split: Split, radius: float, include_self: bool) -> dict[str, Tensor]:
    """All quantities (layer, head) by their definitions, pair by pair."""
    calls: list[AttentionCall] = []
    batch = split.batch(torch.arange(N))
    batch = batch.unpaired() if model.spec.pairs else batch
    with torch.no_grad():
        model(batch.inputs, valid=batch.valid, observe=calls.append)
    shape = model.spec.grid or (model.spec.length,)
    place = torch.cartesian_prod(*map(torch.arange, shape)).view(model.spec.length, -1).double()
    distance = torch.cdist(place, place)
    length = model.spec.length
    visible = torch.ones(len(batch), 1, length, length, dtype=torch.bool)
    if batch.valid is not None:
        visible &= batch.valid[:, None, None] & batch.valid[:, None, :, None]
    if model.config.causal:
        visible &= torch.ones(length, length, dtype=torch.bool).tril()
    skip = int(model.config.readout == "token")
    self_pair = distance == 0
    paired = visible & (include_self | ~self_pair)
    near, far = paired & (distance <= radius), paired & (distance > radius)
    queries = visible.any(-1).sum()
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("proximity_bias", "score_sd", "near_mass", "distance", "entropy")
    }
    uniform = (near.sum(-1).double() / visible.sum(-1).clamp(min=1)).sum()
    for call in calls:
        scores = call.scores()[..., skip:, skip:]
        mean = (scores * paired).sum(-1, keepdim=True) / paired.sum(-1, keepdim=True).clamp(min=1)
        centred = scores - mean
        pattern = scores.masked_fill(~visible, -math.inf).softmax(-1).where(visible, 0.0)
        over = {"dim": (0, 2, 3)}
        gap = (centred * near).sum(**over) / near.sum() - (centred * far).sum(**over) / far.sum()
        found["score_sd"].append(((centred**2 * paired).sum(**over) / paired.sum()).sqrt())
        found["proximity_bias"].append(gap / found["score_sd"][-1])
        found["near_mass"].append((pattern * near).sum(**over) / uniform)
        found["distance"].append((pattern * distance).sum(**over) / queries)
        found["entropy"].append(-torch.special.xlogy(pattern, pattern).sum(**over) / queries)
    return {name: torch.stack(values) for name, values in found.items()}


CASES = [
    (SEQUENCE, {}, False),
    (SEQUENCE, {}, True),
    (SEQUENCE, {"causal": True}, False),
    (SEQUENCE, {"causal": True}, True),
    (SEQUENCE, {"readout": "token", "positions": "learned"}, True),
    (SEQUENCE, {"padding": "attended"}, True),
    (SEQUENCE, {"positions": "rotary"}, False),
    (GRID, {}, False),
    (GRID, {"causal": True}, False),
    (GRID, {"readout": "token"}, False),
    (PAIRS, {}, True),
    (PAIRS, {"causal": True}, False),
]


@pytest.mark.parametrize(("spec", "settings", "padded"), CASES)
@pytest.mark.parametrize("include_self", [True, False])
def test_every_quantity_equals_its_definition(
    spec: Spec, settings: dict[str, object], padded: bool, include_self: bool
) -> None:
    model, split = make(spec, **settings), make_split(spec, padded)
    result = run(model, split, include_self=include_self)
    radius = 3.0 if spec.grid is None else 1.5
    for quantity, wanted in dense(model, split, radius, include_self).items():
        torch.testing.assert_close(estimates(result, quantity), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("spec", "settings", "padded"), CASES)
@pytest.mark.parametrize("null", ["keys", "init"])
def test_the_answer_does_not_depend_on_the_memory_limit(
    spec: Spec, settings: dict[str, object], padded: bool, null: str
) -> None:
    model, split = make(spec, **settings), make_split(spec, padded)
    large, small = (run(model, split, null=null, memory_limit=limit) for limit in (2**30, 170_000))
    for a, b in zip(large.rows, small.rows, strict=True):
        assert (a.layer, a.head, a.quantity) == (b.layer, b.head, b.quantity)
        assert a.interval.estimate == pytest.approx(b.interval.estimate, rel=1e-9, abs=1e-12)
        assert (a.interval.low, a.interval.high) == pytest.approx(
            (b.interval.low, b.interval.high), rel=1e-9, abs=1e-12
        )
        assert a.p_value == b.p_value
    arrays, others = large.arrays(), small.arrays()
    for name in arrays.keys() - {"axes"}:
        np.testing.assert_allclose(arrays[name], others[name], rtol=1e-7, atol=1e-10)


def test_float32_agrees_with_float64() -> None:
    model, split = make(SEQUENCE), make_split(SEQUENCE, padded=True)
    wanted = dense(model, split, 3.0, include_self=True)
    result = run(model.float(), split)
    for quantity, value in wanted.items():
        torch.testing.assert_close(estimates(result, quantity), value, rtol=1e-5, atol=1e-5)


def test_impossible_requests_are_refused_with_a_reason() -> None:
    model, split = make(SEQUENCE), make_split(SEQUENCE, padded=False)
    with pytest.raises(ConfigError, match=r"memory_limit is .* needs .* MiB"):
        run(model, split, memory_limit=1000)
    with pytest.raises(NotApplicableError, match="beyond radius 12"):
        run(model, split, radius=12.0)
    with pytest.raises(NotApplicableError, match="within radius 0"):
        run(model, split, radius=0.5, include_self=False)
    for settings in ({"radius": -1.0}, {"n": 0}, {"level": 1.0}, {"null": "shuffle"}, {"draws": 18}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            run(model, split, **settings)
    single = Spec(length=1, classes=2, vocabulary=5)
    with pytest.raises(NotApplicableError, match="two positions"):
        run(make(single), make_split(single, padded=False))


def test_activations_that_are_not_finite_are_named() -> None:
    model, split = make(SEQUENCE), make_split(SEQUENCE, padded=False)
    with torch.no_grad():
        model.blocks[1].attention.k.bias[5] = math.nan  # 4 channels per head
    with pytest.raises(NotApplicableError, match="layer 1, head 1: k holds NaN"):
        run(model, split)


@pytest.mark.parametrize("null", ["keys", "init"])
def test_constant_scores_have_no_bias_but_a_pattern(null: str) -> None:
    model, split = make(SEQUENCE), make_split(SEQUENCE, padded=False)
    with torch.no_grad():
        model.blocks[1].attention.k.weight.zero_()
    result = run(model.float(), split, null=null)
    assert estimates(result, "proximity_bias")[1].isnan().all()
    assert {(row.p_value, row.null) for row in result.rows if row.layer == 1} == {(None, None)}
    assert all(row.p_value for row in result.rows if row.layer == 0 and row.quantity.startswith("proximity"))
    torch.testing.assert_close(estimates(result, "near_mass")[1], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(estimates(result, "entropy")[1], torch.full((3,), math.log(13), dtype=torch.float64))
    assert estimates(result, "score_sd")[1].eq(0).all()
    with torch.no_grad():
        model.blocks[0].attention.k.weight.zero_()
    with pytest.raises(NotApplicableError, match="in every head all scores of a query are equal"):
        run(model, split, null=null)


def test_scores_that_overflow_are_refused() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 7, 3, 11, 5)) * 1e200
    with pytest.raises(NotApplicableError, match="their scores are not finite"):
        measure(arrays(q, k), null="none")


def test_copies_of_one_sequence_are_refused() -> None:
    model, split = make(GRID), make_split(GRID, padded=False)
    copies = dataclasses.replace(split, inputs=split.inputs[:1].expand_as(split.inputs))
    with pytest.raises(NotApplicableError, match="all 7 sequences have the same scores"):
        run(model.float(), copies)


def test_one_sequence_gives_estimates_without_bounds() -> None:
    result = run(make(GRID), make_split(GRID, padded=False), n=1)
    assert all(math.isfinite(row.interval.estimate) and math.isnan(row.interval.low) for row in result.rows)
    assert {row.interval.n for row in result.rows} == {1}


def test_progress_and_seeds() -> None:
    model, split = make(SEQUENCE), make_split(SEQUENCE, padded=False)
    seen: list[tuple[int, int]] = []
    first = run(model, split, n=5, progress=lambda done, total: seen.append((done, total)), memory_limit=150_000)
    assert seen[-1] == (5, 5)  # permutations take no passes of their own
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 1
    assert first.rows == run(model, split, n=5, memory_limit=150_000).rows
    assert first.rows != run(model, split, n=5, seed=1).rows


@pytest.mark.parametrize(("spec", "causal"), [(SEQUENCE, False), (SEQUENCE, True), (GRID, False)])
def test_profiles_agree_with_the_rows(spec: Spec, causal: bool) -> None:
    model = make(spec, causal=causal)
    result = run(model, make_split(spec, padded=False))
    arrays = result.arrays()
    names = json.loads(str(arrays["axes"]))
    for name, axes in names.items():
        assert arrays[name].ndim == len(axes)
    by_offset = result.map if spec.grid else result.profile
    assert by_offset is not None
    mass, distance = by_offset.mass.estimate, result.layout.distance().numpy()
    over = tuple(range(2, mass.ndim))
    np.testing.assert_allclose(mass.sum(over), 1.0, rtol=1e-12)
    np.testing.assert_allclose((mass * distance).sum(over), estimates(result, "distance").numpy(), rtol=1e-10)
    np.testing.assert_allclose(result.profile.mass.estimate.sum(-1), 1.0, rtol=1e-12)
    unreachable = ~result.layout.reachable().numpy()
    assert np.isnan(by_offset.score.estimate[..., unreachable]).all()
    assert np.isfinite(by_offset.score.estimate[..., ~unreachable]).all()


def test_ratio_bands_match_the_delta_method_and_cover() -> None:
    g = np.random.default_rng(0)
    covered = []
    for _ in range(20):
        c = torch.from_numpy(g.integers(1, 9, size=(31, 50)).astype(float))
        x = 0.7 * c[:, None] + torch.from_numpy(g.normal(size=(31, 2, 50))) * c[:, None].sqrt()
        bands = RatioBands([2], (50,))
        bands.add(0, x[:11], c[:11])
        bands.add(0, x[11:], c[11:])
        band = bands.band(0.95, 31)
        ratio = x.sum(0) / c.sum(0)
        error = (x - ratio * c[:, None]).square().sum(0).mul(31 / 30).sqrt() / c.sum(0)
        np.testing.assert_allclose(band.estimate[0], ratio, rtol=1e-12)
        np.testing.assert_allclose(band.high[0] - band.low[0], 2 * stats.t.isf(0.025, 30) * error, rtol=1e-9)
        covered.append((band.low <= 0.7) & (band.high >= 0.7))
    assert 0.92 <= np.mean(covered) <= 0.98
