"""Cross-correlations and streamed softmax sums against dense float64 matrices, kept here only."""

import dataclasses
import math
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnprobe.scores.layout import Layout
from attnprobe.scores.offset_sums import centre, contrast_keys, pair_counts, row_means, score_moments, square_sum
from attnprobe.scores.pattern_sums import fold, pattern_moments, tile_rows

BATCH, HEADS, D_HEAD = 2, 3, 5
SCALE = D_HEAD**-0.5


class Dense:
    """Every statistic from the definition, with loops over offsets and explicit matrices."""

    def __init__(self, q: Tensor, k: Tensor, layout: Layout, valid: Tensor | None) -> None:
        length = layout.length
        visible = torch.ones(len(q), 1, length, length, dtype=torch.bool)
        if valid is not None:
            visible = visible & valid[:, None, None, :] & valid[:, None, :, None]
        if layout.causal:
            visible = visible & torch.ones(length, length, dtype=torch.bool).tril()
        if not layout.self_pairs:
            visible = visible & ~torch.eye(length, dtype=torch.bool)
        self.layout, self.visible = layout, visible
        scores = (q @ k.mT * SCALE).double()
        count = visible.sum(-1, keepdim=True).clamp(min=1)
        self.centred = torch.where(visible, scores - (scores * visible).sum(-1, keepdim=True) / count, 0.0)
        pattern = scores.masked_fill(~visible, -math.inf).softmax(-1)
        self.pattern = torch.where(visible, pattern, 0.0)
        self.entropy = -(self.pattern * self.pattern.clamp(min=1e-300).log()).sum((-2, -1))

    def by_offset(self, matrix: Tensor) -> Tensor:
        place = torch.cartesian_prod(*map(torch.arange, self.layout.shape)).view(self.layout.length, -1)
        index = torch.zeros(self.layout.length, self.layout.length, dtype=torch.int64)
        for axis, (size, offsets) in enumerate(zip(self.layout.shape, self.layout.offsets, strict=True)):
            index = index * offsets + place[None, :, axis] - place[:, None, axis] + size - 1
        sums = torch.zeros(*matrix.shape[:2], math.prod(self.layout.offsets), dtype=torch.float64)
        sums.index_add_(-1, index.flatten(), matrix.double().flatten(2))
        return sums.unflatten(-1, self.layout.offsets)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300))


def make_case(shape: tuple[int, ...], causal: bool, padded: bool, seed: int = 0, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(seed)
    layout = Layout(shape=shape, causal=causal)
    q, k = (torch.randn(BATCH, HEADS, layout.length, D_HEAD, generator=g, dtype=torch.float64) for _ in range(2))
    k = k + 3.0  # a common part of all keys that centring must take off
    valid = None
    if padded:
        lengths = torch.tensor([[layout.length], [max(1, layout.length * 2 // 3)]])
        valid = torch.arange(layout.length) < lengths
    return q.to(dtype), k.to(dtype), layout, valid


SHAPES = [(1,), (2,), (13,), (31,), (3, 5), (7, 4), (1, 6), (5, 1)]
cases = pytest.mark.parametrize(
    ("shape", "causal", "padded"), [(s, c, p) for s in SHAPES for c in (False, True) for p in (False, True)]
)


@cases
def test_centred_scores_and_their_squares_by_offset(shape: tuple[int, ...], causal: bool, padded: bool) -> None:
    q, k, layout, valid = make_case(shape, causal, padded)
    dense = Dense(q, k, layout, valid)
    scale = (q.norm(dim=-1).sum() * k.norm(dim=-1).max() * SCALE).item()
    for block_bytes in (2**28, 1):  # 1 byte: one channel at a time
        sums, squares = score_moments(q, k, layout, scale=SCALE, valid=valid, squares=True, block_bytes=block_bytes)
        assert squares is not None
        assert (sums - dense.by_offset(dense.centred)).abs().max() <= 1e-13 * scale
        assert (squares - dense.by_offset(dense.centred**2)).abs().max() <= 1e-13 * scale**2
    counts = dense.by_offset(dense.visible.double())
    assert torch.equal(pair_counts(layout, valid).expand(BATCH, *layout.offsets), counts[:, 0])
    total = square_sum(q, k, layout, scale=SCALE, valid=valid)
    assert (total - (dense.centred**2).sum((-2, -1))).abs().max() <= 1e-13 * scale**2


@cases
def test_centred_channels_give_the_centred_matrix(shape: tuple[int, ...], causal: bool, padded: bool) -> None:
    q, k, layout, valid = make_case(shape, causal, padded)
    dense = Dense(q, k, layout, valid)
    a, b = centre(q, k, valid, causal=causal)
    found = torch.where(dense.visible, a @ b.mT * SCALE, 0.0)
    torch.testing.assert_close(found, dense.centred, rtol=1e-12, atol=1e-12)


@cases
@pytest.mark.parametrize("tile", [1, 300, 2**20])
def test_streamed_pattern_and_entropy(shape: tuple[int, ...], causal: bool, padded: bool, tile: int) -> None:
    q, k, layout, valid = make_case(shape, causal, padded)
    dense = Dense(q, k, layout, valid)
    mass, entropy = pattern_moments(q, k, layout, scale=SCALE, valid=valid, tile=tile)
    assert relative(mass, dense.by_offset(dense.pattern)) <= 1e-12
    torch.testing.assert_close(entropy, dense.entropy, rtol=1e-12, atol=1e-12)
    queries = layout.length * torch.ones(BATCH, 1) if valid is None else valid.sum(1, keepdim=True)
    torch.testing.assert_close(mass.flatten(2).sum(-1), queries.double().expand(-1, HEADS))


@cases
def test_a_contrast_is_linear_in_the_keys(shape: tuple[int, ...], causal: bool, padded: bool) -> None:
    q, k, layout, valid = make_case(shape, causal, padded)
    weights = torch.randn(layout.offsets, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    u = contrast_keys(q, weights, layout, scale=SCALE, valid=valid)
    scale = (q.norm(dim=-1).sum() * k.norm(dim=-1).max()).item()
    order = torch.arange(layout.length)
    if not padded:
        order = torch.randperm(layout.length, generator=torch.Generator().manual_seed(6))
    for keys in (k, k[..., order, :]):
        dense = Dense(q, keys, layout, valid)
        wanted = (dense.by_offset(dense.centred) * weights).flatten(2).sum(-1)
        assert ((u * keys).sum((-2, -1)) - wanted).abs().max() <= 1e-12 * scale


@cases
def test_pairs_of_a_position_with_itself_can_be_left_out_of_sums_and_means(
    shape: tuple[int, ...], causal: bool, padded: bool
) -> None:
    q, k, layout, valid = make_case(shape, causal, padded)
    layout = dataclasses.replace(layout, self_pairs=False)
    dense = Dense(q, k, layout, valid)
    scale = (q.norm(dim=-1).sum() * k.norm(dim=-1).max() * SCALE).item()
    sums, squares = score_moments(q, k, layout, scale=SCALE, valid=valid, squares=True)
    assert (sums - dense.by_offset(dense.centred)).abs().max() <= 1e-13 * scale
    assert squares is not None
    assert (squares - dense.by_offset(dense.centred**2)).abs().max() <= 1e-13 * scale**2
    counts = dense.by_offset(dense.visible.double())
    assert torch.equal(pair_counts(layout, valid).expand(BATCH, *layout.offsets), counts[:, 0])
    total = square_sum(q, k, layout, scale=SCALE, valid=valid)
    assert (total - (dense.centred**2).sum((-2, -1))).abs().max() <= 1e-13 * scale**2
    weights = torch.randn(layout.offsets, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    u = contrast_keys(q, weights, layout, scale=SCALE, valid=valid)
    wanted = (dense.by_offset(dense.centred) * weights).flatten(2).sum(-1)
    assert ((u * k).sum((-2, -1)) - wanted).abs().max() <= 1e-12 * scale
    place = torch.cartesian_prod(*map(torch.arange, shape)).view(layout.length, -1)
    offset = place[None] - place[:, None] + torch.tensor(shape) - 1
    by_pair = weights[tuple(offset.movedim(-1, 0))] * dense.visible
    wanted = by_pair.sum(-1) / dense.visible.sum(-1).clamp(min=1)
    torch.testing.assert_close(row_means(weights, layout, valid).expand(BATCH, -1), wanted[:, 0].expand(BATCH, -1))


@pytest.mark.parametrize(("shape", "causal"), [((509,), False), ((509,), True), ((19, 23), False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_long_sequences_in_both_precisions(
    shape: tuple[int, ...], causal: bool, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, layout, valid = make_case(shape, causal, padded=True, dtype=dtype)
    dense = Dense(q.double(), k.double(), layout, valid)
    sums, squares = score_moments(q, k, layout, scale=SCALE, valid=valid, squares=True)
    assert squares is not None
    mass, entropy = pattern_moments(q, k, layout, scale=SCALE, valid=valid, tile=200_000)
    assert relative(square_sum(q, k, layout, scale=SCALE, valid=valid), (dense.centred**2).sum((-2, -1))) <= tolerance
    assert relative(entropy, dense.entropy) <= tolerance
    for found, matrix in ((sums, dense.centred), (squares, dense.centred**2), (mass, dense.pattern)):
        assert relative(found, dense.by_offset(matrix)) <= tolerance


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(st.integers(1, 40)),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4000),
    st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_profiles_sum_to_what_they_must(
    shape: tuple[int, ...], causal: bool, padded: bool, tile: int, seed: int
) -> None:
    q, k, layout, valid = make_case(shape, causal, padded, seed)
    sums, squares = score_moments(q, k, layout, scale=SCALE, valid=valid, squares=True)
    assert squares is not None
    total = square_sum(q, k, layout, scale=SCALE, valid=valid)
    torch.testing.assert_close(squares.flatten(2).sum(-1), total, rtol=1e-9, atol=1e-9)
    # Centred rows sum to zero, hence so does the whole profile.
    assert sums.flatten(2).sum(-1).abs().max() <= 1e-9 * (1 + total.max().sqrt().item()) * layout.length
    # A common key changes nothing.
    shifted, _ = score_moments(q, k + 2.0, layout, scale=SCALE, valid=valid)
    torch.testing.assert_close(shifted, sums, rtol=1e-9, atol=1e-9 * layout.length)
    mass, entropy = pattern_moments(q, k, layout, scale=SCALE, valid=valid, tile=tile)
    assert mass.min() >= 0
    assert (mass * ~layout.reachable()).abs().max() == 0
    queries = torch.full((BATCH,), layout.length) if valid is None else valid.sum(1)
    assert (entropy <= queries[:, None] * math.log(layout.length) + 1e-9).all()


def test_uniform_scores_have_no_spread_and_full_entropy() -> None:
    q, k = torch.randn(1, 2, 37, 5, generator=torch.Generator().manual_seed(0)), torch.ones(1, 2, 37, 5) * 0.3
    layout = Layout(shape=(37,))
    assert square_sum(q, k, layout, scale=1.0).eq(0).all()
    _, entropy = pattern_moments(q, k, layout, scale=1.0)
    torch.testing.assert_close(entropy, torch.full((1, 2), 37 * math.log(37.0)))


def test_scores_of_a_thousand_do_not_overflow() -> None:
    q, k, layout, _ = make_case((17,), causal=True, padded=False, dtype=torch.float32)
    mass, entropy = pattern_moments(q * 1000, k, layout, scale=SCALE, tile=64)
    assert torch.isfinite(mass).all()
    assert torch.isfinite(entropy).all()
    torch.testing.assert_close(mass.sum(-1), torch.full((BATCH, HEADS), 17.0), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_the_transform_is_much_faster_than_the_matrix() -> None:
    """Length 2048, 4 heads, d_head 16, means only; about 40 times on an idle core, hence 5 on a busy one."""
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 4, 2048, 16, generator=g) for _ in range(2))
    layout = Layout(shape=(2048,))

    def by_matrix() -> Tensor:
        scores = q @ k.mT
        scores -= scores.mean(-1, keepdim=True)
        return torch.stack([scores.diagonal(o, -2, -1).sum(-1) for o in range(-2047, 2048)], -1)

    def by_transform() -> Tensor:
        return score_moments(q, k, layout, scale=1.0)[0]

    def best(call: Callable[[], Tensor]) -> float:
        seconds = []
        for _ in range(4):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        return min(seconds)

    assert relative(by_transform(), by_matrix().double()) < 1e-5
    assert best(by_matrix) > 5 * best(by_transform)


@given(st.integers(1, 11), st.integers(1, 13))
def test_fold_sums_diagonals(rows: int, columns: int) -> None:
    matrix = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns))
    wanted = torch.stack([matrix.diagonal(o, -2, -1).sum(-1) for o in range(1 - rows, columns)], -1)
    torch.testing.assert_close(fold(matrix), wanted)


@given(st.integers(0, 10**7), st.integers(1, 5000))
def test_tiles_fit_their_budget(budget: int, height: int) -> None:
    queries, keys = tile_rows(budget, height)
    assert 1 <= queries <= height
    assert 1 <= keys <= height
    assert queries * keys <= max(1, budget)
