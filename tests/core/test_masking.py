import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnprobe.masking import bernoulli_mask, hash_uniform, keep_mask, span_mask


def test_a_bit_depends_on_its_four_counters_only() -> None:
    whole = bernoulli_mask(0.5, seed=3, sample=torch.arange(97), epoch=5, length=53)
    part = bernoulli_mask(0.5, seed=3, sample=torch.tensor([41, 7, 96]), epoch=5, length=53)
    assert torch.equal(part, whole[[41, 7, 96]])
    longer = bernoulli_mask(0.5, seed=3, sample=torch.arange(97), epoch=5, length=61)
    assert torch.equal(longer[:, :53], whole)


def test_golden_bits() -> None:
    """Fixed for ever: runs recorded with one version must see the same masks in the next."""
    mask = bernoulli_mask(0.5, seed=11, sample=torch.arange(3), epoch=2, length=13)
    assert ["".join("x" if bit else "." for bit in row) for row in mask] == GOLDEN


GOLDEN = ["x.xx..xxxxxxx", "..xxx...x..xx", "xxx..x.xx...."]


@pytest.mark.parametrize("ratio", [0.1, 0.15, 0.25, 0.5])
def test_share_of_hidden_positions(ratio: float) -> None:
    mask = bernoulli_mask(ratio, seed=0, sample=torch.arange(2003), epoch=1, length=211)
    n = mask.numel()
    assert abs(mask.float().mean().item() - ratio) < 5 * (ratio * (1 - ratio) / n) ** 0.5


def test_numbers_are_uniform_and_uncorrelated_along_every_counter() -> None:
    sample, position = torch.arange(307)[:, None], torch.arange(311)
    u = torch.stack([hash_uniform(7, sample, epoch, position) for epoch in range(5)]).numpy()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.001
    for axis in range(3):
        a = np.moveaxis(u, axis, 0)
        correlation = np.corrcoef(a[:-1].ravel(), a[1:].ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a[1:].size)
    other_seed = hash_uniform(8, sample, 0, position).numpy()
    assert abs(np.corrcoef(u[0].ravel(), other_seed.ravel())[0, 1]) < 5 / np.sqrt(other_seed.size)


def test_padding_is_never_hidden() -> None:
    valid = torch.arange(17) < torch.tensor([[17], [5]])
    mask = bernoulli_mask(0.9, seed=0, sample=torch.arange(2), epoch=0, length=17, valid=valid)
    assert not mask[1, 5:].any()
    assert mask[0].any()
    assert mask[1, :5].any()


def runs_of(mask: torch.Tensor) -> list[int]:
    """Lengths of the runs of hidden positions of one sequence, by plain Python."""
    text = "".join("x" if bit else "." for bit in mask)
    return [len(part) for part in text.split(".") if part]


@given(
    st.floats(0.05, 0.9), st.integers(1, 9), st.lists(st.integers(1, 61), min_size=1, max_size=7), st.integers(0, 99)
)
def test_spans_are_whole_disjoint_and_as_many_as_fit(ratio: float, span: int, lengths: list[int], seed: int) -> None:
    valid = torch.arange(67) < torch.tensor(lengths)[:, None]
    mask = span_mask(ratio, span, seed=seed, sample=torch.arange(len(lengths)), epoch=3, length=67, valid=valid)
    assert not (mask & ~valid).any()
    for row, n in zip(mask, lengths, strict=True):
        assert row.sum() == math.floor(n * ratio / span + 1e-3) * span
        assert all(run % span == 0 for run in runs_of(row))  # neighbouring spans join into a longer run


def test_every_arrangement_of_spans_is_equally_likely() -> None:
    """2 spans of 3 among 8 positions: 2 spans and 2 single positions in any order, 6 arrangements."""
    n = 30_011
    mask = span_mask(0.75, 3, seed=5, sample=torch.arange(n), epoch=0, length=8)
    arrangements, counts = mask.unique(dim=0, return_counts=True)
    assert len(arrangements) == math.comb(4, 2)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_spans_depend_on_their_counters_only_and_reach_the_ratio() -> None:
    samples = torch.arange(97)
    whole = span_mask(0.15, 7, seed=3, sample=samples, epoch=5, length=1009)
    part = span_mask(0.15, 7, seed=3, sample=torch.tensor([41, 7]), epoch=5, length=1009)
    assert torch.equal(part, whole[[41, 7]])
    assert whole.double().mean().item() == pytest.approx(21 * 7 / 1009)  # floor(1009 * .15 / 7) = 21
    assert not torch.equal(whole, span_mask(0.15, 7, seed=3, sample=samples, epoch=6, length=1009))
    seeds = torch.full((97, 1), 3)
    assert torch.equal(whole, span_mask(torch.full((97, 1), 0.15), 7, seed=seeds, sample=samples, epoch=5, length=1009))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_kept_numbers_are_independent_of_each_other(rate: float) -> None:
    """Rates, and correlations between neighbours along every counter, within five standard errors."""
    sample, position, channel = torch.arange(53)[:, None, None], torch.arange(59)[:, None], torch.arange(61)
    keep = torch.stack([keep_mask(rate, 1, epoch, sample, 0, position, channel) for epoch in range(3)]).double().numpy()
    assert abs(keep.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / keep.size) ** 0.5
    for axis in range(4):
        a = np.moveaxis(keep, axis, 0)
        correlation = np.corrcoef(a[:-1].ravel(), a[1:].ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a[1:].size)
    other = keep_mask(rate, 1, 0, sample, 1, position, channel).double().numpy()  # at another site
    assert abs(np.corrcoef(keep[0].ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(other.size)
