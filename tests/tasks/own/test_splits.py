"""Who trains, validates and tests: by class, to the stated shares, and the same whenever it is asked."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ArtifactError
from attnprobe.tasks.own.labels import classes_of
from attnprobe.tasks.own.splits import by_name, by_share, stratified

FILE = Path("mine")


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0.01, 0.9), st.integers(0, 9))
def test_every_class_gives_its_share(labels: list[int], share: float, seed: int) -> None:
    classes = np.array(labels)
    count = round(share * len(classes))
    chosen = stratified(classes, count, draw(seed))
    sizes, taken = np.bincount(classes), np.bincount(classes[chosen], minlength=classes.max() + 1)
    assert taken.sum() <= count
    assert (taken <= np.maximum(sizes - 1, 0)).all()  # one of each class is left to train on
    large = sizes * (1 - count / len(classes)) >= 2  # where that bound is far away
    assert (np.abs(taken - sizes * count / len(classes))[large] <= (1 if large.all() else np.inf)).all()
    if large[sizes > 0].all():
        assert taken.sum() == count
    assert (chosen == stratified(classes, count, draw(seed))).all()


def test_shares_are_rounded_by_the_largest_remainders() -> None:
    labels = np.repeat([0, 1, 2], [11, 13, 17])  # 20 %: 2.2, 2.6 and 3.4 of 8
    taken = np.bincount(labels[stratified(labels, 8, draw(0))])
    assert taken.tolist() == [2, 3, 3]


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_are_apart_and_whole(seed: int) -> None:
    labels = np.arange(101) % 3
    parts = by_share(FILE, labels, {}, 0.1, 0.2, seed)
    assert list(parts) == ["train", "validation", "test"]
    assert [len(index) for index in parts.values()] == [71, 10, 20]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(101))
    again, other = by_share(FILE, labels, {}, 0.1, 0.2, seed), by_share(FILE, labels, {}, 0.1, 0.2, 5)
    assert all((parts[name] == again[name]).all() for name in parts)
    assert parts["test"].tolist() != other["test"].tolist()


def test_the_test_part_does_not_depend_on_the_validation_share() -> None:
    labels = np.arange(60) % 2
    few, many = (by_share(FILE, labels, {}, share, 0.2, 0) for share in (0.1, 0.3))
    assert (few["test"] == many["test"]).all()


def test_what_the_data_name_stays_as_it_is() -> None:
    names = [["train", "Training", "DEV", "test", "train"][i % 5] for i in range(50)]
    given_parts = by_name(FILE, names)
    parts = by_share(FILE, np.arange(50) % 2, given_parts, 0.1, 0.2, 0)
    assert parts["validation"].tolist() == list(range(2, 50, 5))
    assert parts["test"].tolist() == list(range(3, 50, 5))
    assert len(parts["train"]) == 30


def test_what_the_data_do_not_name_is_taken_from_the_training_part() -> None:
    given_parts = by_name(FILE, [0] * 40 + [2] * 10)
    parts = by_share(FILE, np.arange(50) % 2, given_parts, 0.1, 0.2, 0)
    assert parts["test"].tolist() == list(range(40, 50))
    assert len(parts["validation"]) == 4
    assert max(parts["validation"]) < 40
    assert not set(parts["train"]) & set(parts["validation"])


@pytest.mark.parametrize(("named", "words"), [(["train", "holdout"], "sample 2 is in a split called 'holdout'"),
                                              (["test", "test"], "no sample of it trains")])  # fmt: skip
def test_other_names_are_refused(named: list[str], words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        by_name(FILE, named)
    assert error.value.hint


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_samples_are_refused(n: int) -> None:
    with pytest.raises(ArtifactError, match=f"too few samples: {n}"):
        by_share(FILE, np.arange(n) % 2, {}, 0.1, 0.2, 0)


def test_classes_are_in_order() -> None:
    labels, names = classes_of(FILE, "labels", [10, 9, -1, 10, 9, 10])
    assert (labels.tolist(), names) == ([2, 1, 0, 2, 1, 2], ("-1", "9", "10"))
    labels, names = classes_of(FILE, "labels", ["b", "10", "é", "b", "9", "10", "é", "9"])
    assert names == ("9", "10", "b", "é")
    assert labels.tolist() == [2, 1, 3, 2, 0, 1, 3, 0]
    assert classes_of(FILE, "labels", [2.0, 1.0, 2.0])[1] == ("1", "2")
    labels, names = classes_of(FILE, "labels", [0, 2, 0], ("zero", "one", "two"))
    assert (labels.tolist(), names) == ([0, 2, 0], ("zero", "one", "two"))


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        (["a", "", "b", None], (), "missing for 2 of 4 samples, first 2"),
        ([1.0, float("nan")], (), "missing for 1 of 2"),
        (["a", "a"], (), "one class only: 'a'"),
        ([0, 0, 0], ("no", "yes"), "one class only: '0'"),
        ([0.5, 1.5], (), "numbers with fractions, such as 0.5"),
        (list("abcdefg"), (), "7 different values in 7 samples"),
        ([0, 2, 0, 2], ("no", "yes"), "hold '2'"),
        (["x" * 999, "b"], (), "long texts"),
    ],
)
def test_labels_that_are_no_classes_are_refused(values: list, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        classes_of(FILE, "labels", values, names)
    assert error.value.hint
