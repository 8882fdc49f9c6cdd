"""Proximity where windows limit who sees whom, against loops over all pairs and against attention without windows."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.config import build
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import proximity
from attnprobe.scores import visible_sums, window_sums
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Spec, Split
from tests.probes.seeing import sees

BATCH, HEADS, WIDTH = 3, 2, 5
LAYOUTS = [
    Layout(shape=shape, causal=causal, self_pairs=own, **rule)
    for shape in ((13,), (5, 3))
    for causal, own in ((False, True), (True, True), (False, False))
    for rule in ({"window": 2}, {"block": 3}, {"window": 100})
]


def bin_of(layout: Layout, query: int, key: int) -> tuple[int, ...]:
    places = [np.array(np.unravel_index(n, layout.shape)) for n in (query, key)]
    return tuple(int(n) for n in places[1] - places[0] + np.array(layout.shape) - 1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tile", [1, 2**20])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sums_are_those_over_the_pairs_that_are_seen(layout: Layout, tile: int, padded: bool, monkeypatch) -> None:
    monkeypatch.setattr(window_sums, "TILE", tile)
    length, scale = layout.length, 0.7
    generator = torch.Generator().manual_seed(length)
    q, k = (torch.randn(BATCH, HEADS, length, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.randn(layout.offsets, generator=generator, dtype=torch.float64)
    lengths = [length, 4, 1] if padded else [length] * BATCH
    valid = torch.arange(length) < torch.tensor(lengths)[:, None] if padded else None
    wanted = {name: torch.zeros(BATCH, HEADS, *layout.offsets).double() for name in ("scores", "mass", "pairs")}
    squares, entropy, gap = (torch.zeros(BATCH, HEADS).double() for _ in range(3))
    means = torch.zeros(BATCH, length).double()
    for b, h, i in itertools.product(range(BATCH), range(HEADS), range(length)):
        keys = [j for j in range(length) if max(i, j) < lengths[b] and sees(layout, i, j)]
        if not keys:
            continue
        scores = torch.stack([q[b, h, i] @ k[b, h, j] * scale for j in keys])
        centred, pattern = scores - scores.mean(), scores.softmax(0)
        squares[b, h] += centred.square().sum()
        entropy[b, h] -= (pattern * pattern.log()).sum()
        means[b, i] = torch.stack([weights[bin_of(layout, i, j)] for j in keys]).mean()
        for j, score, mass in zip(keys, centred, pattern, strict=True):
            place = b, h, *bin_of(layout, i, j)
            for name, value in (("scores", score), ("mass", mass), ("pairs", 1)):
                wanted[name][place] += value
            gap[b, h] += weights[bin_of(layout, i, j)] * score
    given: dict[str, Any] = {"scale": scale, "valid": valid}
    mass, found_entropy = window_sums.pattern_moments(q, k, layout, tile=tile, **given)
    u = window_sums.contrast_keys(q, weights, layout, **given)
    close(window_sums.score_moments(q, k, layout, block_bytes=tile, **given)[0], wanted["scores"])
    close(mass, wanted["mass"])
    close(found_entropy, entropy)
    close(window_sums.square_sum(q, k, layout, **given), squares)
    close(window_sums.product_sum((q, k), (q, k), layout, valid=valid) * scale**2, squares)
    first, stop = layout.rule.bounds(length)
    for i in range(length):
        others = [j for j in range(length) if sees(dataclasses.replace(layout, self_pairs=True), i, j)]
        assert others == [*range(first[i], stop[i])]
    assert torch.equal(visible_sums.occurring(layout), window_sums.pair_counts(layout)[0] > 0)
    close((u * k).sum((2, 3)), gap)
    close(window_sums.pair_counts(layout, valid).expand(BATCH, *layout.offsets), wanted["pairs"][:, 0])
    close(window_sums.row_means(weights, layout, valid).expand(BATCH, -1), means)
    assert not (wanted["pairs"].sum((0, 1)) > 0)[~layout.reachable()].any()


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-10


def subject(name: str = "block_local", *, length: int = 40, grid: tuple[int, int] | None = None, **settings: Any):
    mixer = {"name": name, **settings.pop("mixer", {})}
    table = {"d_model": 12, "heads": 3, "layers": 2, "mixer": mixer, **settings}
    spec = Spec(length=length, classes=3, channels=2, grid=grid)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(9, length, 2, generator=generator)
    lengths = None if grid else torch.tensor([40, 40, 31, 7, 25, 40, 12, 39, 33])
    split = Split(inputs=inputs, labels=torch.arange(9) % 3, lengths=lengths)
    return ours.of(make_model(build(TransformerConfig, table), spec, "values", seed=0), split)


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"positions": "rotary"}, {"grid": (8, 5)}], ids=str)
def test_a_window_as_long_as_the_sequence_is_no_window(settings: dict[str, Any]) -> None:
    """The same weights measured by transforms and tile by tile; sums in float32."""
    windowed = subject(mixer={"window": 40}, **settings)
    plain = subject("attention", **settings)
    state = {key.replace(".attention.", ".block_local."): t for key, t in plain.model.state_dict().items()}
    windowed.model.load_state_dict(state)
    found, wanted = (proximity.measure(s, n=9, null="init", draws=19) for s in (windowed, plain))
    for mine, other in zip(found.rows, wanted.rows, strict=True):
        assert (mine.layer, mine.head, mine.quantity) == (other.layer, other.head, other.quantity)
        assert mine.interval.estimate == pytest.approx(other.interval.estimate, rel=1e-4, abs=1e-5)
        if mine.quantity != "proximity_bias" or mine.p_value is None:
            continue
        assert 0 < mine.p_value <= 1  # draws are other ones: they depend on the parameters' names
    assert np.allclose(found.profile.score.estimate, wanted.profile.score.estimate, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", ["block_local", "spade"])
def test_what_is_seen_is_counted_and_nothing_else(name: str) -> None:
    made = subject(name, mixer={"window": 6})
    found = proximity.measure(made, n=9, null="none", radius=2.0)
    calls: list[Any] = []
    with torch.no_grad():
        made.run(found.samples, observe=calls.append)
    real = made.real(found.samples)
    assert real is not None
    offset = torch.arange(40) - torch.arange(40)[:, None]
    near = offset.abs() <= 2
    bias = {(r.layer, r.head): r.interval.estimate for r in found.rows if r.quantity == "proximity_bias"}
    mass = {(r.layer, r.head): r.interval.estimate for r in found.rows if r.quantity == "near_mass"}
    for call in calls:
        visible = call.visible & real[:, None, :, None] & torch.ones(1, 3, 1, 1).bool()
        assert visible.double().mean() < 0.3
        scores = call.scores().double()
        count = visible.sum(-1, keepdim=True).clamp(min=1)
        centred = (scores - (scores * visible).sum(-1, keepdim=True) / count) * visible
        for head in range(3):
            seen = visible[:, head]
            gap = centred[:, head][seen & near].mean() - centred[:, head][seen & ~near].mean()
            assert bias[call.layer, head] == pytest.approx(
                float(gap / centred[:, head][seen].std(correction=0)), abs=1e-4
            )
            pattern = call.pattern().double()[:, head].nan_to_num() * seen  # padding may see nothing
            uniform = ((seen & near).sum(-1) / seen.sum(-1).clamp(min=1)).sum()
            assert mass[call.layer, head] == pytest.approx(float((pattern * near).sum() / uniform), rel=1e-4)


def test_what_has_no_meaning_in_windows_is_refused() -> None:
    made = subject(mixer={"window": 6})
    with pytest.raises(NotApplicableError, match="keys cannot be permuted where windows limit who sees them"):
        proximity.measure(made, n=4, null="keys")
    shifted = subject(mixer={"window": 6}, readout="token")
    with pytest.raises(NotApplicableError, match="lets positions see others than all"):
        proximity.measure(shifted, n=4)
