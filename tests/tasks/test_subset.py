import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ConfigError
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.subset import Subset, nested_prefix, noisy_labels


def make_split(n: int, classes: int = 5) -> Split:
    labels = torch.arange(n) % classes
    return Split(inputs=torch.arange(n)[:, None, None], labels=labels, lengths=torch.arange(n) + 1)


def make_data(n: int) -> Data:
    return Data(
        spec=Spec(length=n, classes=5), train=make_split(n), validation=make_split(n + 3), test=make_split(n + 7)
    )


def test_all_of_it_is_not_even_copied() -> None:
    data = make_data(7)
    used = Subset().apply(data)
    assert all(used.splits()[name] is split for name, split in data.splits().items())


@given(st.integers(1, 60), st.integers(1, 60))
def test_subsets_are_nested(small: int, large: int) -> None:
    small, large = sorted((small, large))
    few, many = (Subset(n_train=n).apply(make_data(60)).train for n in (small, large))
    assert torch.equal(few.inputs, many.inputs[:small])
    assert torch.equal(few.labels, few.inputs[:, 0, 0] % 5)
    assert few.lengths is not None
    assert torch.equal(few.lengths, few.inputs[:, 0, 0] + 1)


def test_the_order_is_the_published_one() -> None:
    assert nested_prefix(10, 4).tolist() == np.random.RandomState(42).permutation(10).tolist()[:4] == [8, 1, 5, 0]


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, 60), (0.5, 30), (0.005, 1), (0.99, 59)])
def test_fractions(fraction: float, expected: int) -> None:
    assert len(Subset(fraction=fraction).apply(make_data(60)).train) == expected


def test_more_than_there_is_cannot_be_had() -> None:
    with pytest.raises(ConfigError, match=r"task\.n_train can be at most 60, got 61"):
        Subset(n_train=61).apply(make_data(60))


@pytest.mark.parametrize("bad", [{"fraction": 0.0}, {"fraction": 1.5}, {"label_noise": 1.0}, {"label_noise": -0.1}])
def test_impossible_shares_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Subset(**bad)  # pyright: ignore[reportArgumentType]


def test_noise_has_its_rate_and_spreads_evenly() -> None:
    labels = np.arange(100_000) % 5
    noisy = noisy_labels(labels, 5, 0.3)
    wrong = noisy != labels
    assert abs(wrong.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 100_000)
    shifts = np.bincount((noisy - labels)[wrong] % 5, minlength=5)
    assert shifts[0] == 0
    assert np.abs(shifts[1:] / wrong.sum() - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / wrong.sum())


def test_more_noise_keeps_the_wrong_labels_of_less() -> None:
    labels = np.arange(2000) % 7
    little, much = noisy_labels(labels, 7, 0.1), noisy_labels(labels, 7, 0.4)
    assert (much[little != labels] == little[little != labels]).all()


def test_smaller_sets_see_the_same_wrong_labels() -> None:
    small, large = (Subset(n_train=n, label_noise=0.5).apply(make_data(60)).train for n in (20, 50))
    assert torch.equal(small.labels, large.labels[:20])
    assert not torch.equal(small.labels, small.inputs[:, 0, 0] % 5)


def test_validation_and_test_sets_can_be_smaller() -> None:
    data = Subset(n_validation=4, n_test=5, label_noise=0.9).apply(make_data(60))
    assert [len(split) for split in data.splits().values()] == [60, 4, 5]
    for split in (data.validation, data.test):
        assert torch.equal(split.labels, split.inputs[:, 0, 0] % 5)  # and keep their labels
    assert data.validation.inputs[:, 0, 0].tolist() == nested_prefix(63, 4).tolist()
    with pytest.raises(ConfigError, match=r"task\.n_test can be at most 67, got 68"):
        Subset(n_test=68).apply(make_data(60))
