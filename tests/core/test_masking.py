import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.masking import bernoulli_mask, hash_uniform


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
