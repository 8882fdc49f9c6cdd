"""What an arm gains: paired by seed, Student's interval against its formula."""

import math

import numpy as np
import pytest
from scipy import stats

from attnprobe.errors import ConfigError
from attnprobe.launch.arms import settings_of, with_seeds
from attnprobe.launch.gains import differences, gain, means


def arm(accuracies: dict[int, float]) -> list[dict]:
    keys = ("train_accuracy", "validation_accuracy", "test_accuracy")
    return [{"seed": seed, "seconds": 10.0 * seed} | dict.fromkeys(keys, value) for seed, value in accuracies.items()]


def test_gain_is_paired_by_seed_whatever_the_order() -> None:
    treated, control = arm({0: 0.75, 1: 0.5, 2: 0.875}), arm({2: 0.5, 0: 0.25, 1: 0.375})
    assert differences(treated, control) == {0: 0.5, 1: 0.125, 2: 0.375}
    x = np.array([0.5, 0.125, 0.375])
    half = stats.t.ppf(0.95, 2) * x.std(ddof=1) / math.sqrt(3)  # of a 90 % interval
    found = gain(treated, control, level=0.9)
    assert (found.n, found.level, found.unit) == (3, 0.9, "test accuracy")
    assert [found.estimate, found.low, found.high] == pytest.approx([x.mean(), x.mean() - half, x.mean() + half])
    assert means(treated) == {
        "train_accuracy": 2.125 / 3, "validation_accuracy": 2.125 / 3, "test_accuracy": 2.125 / 3, "seconds": 10.0,
    }  # fmt: skip


def test_one_seed_has_no_bounds() -> None:
    found = gain(arm({3: 0.75}), arm({3: 0.5}))
    assert found.estimate == 0.25
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("control", [{0: 0.5}, {0: 0.5, 2: 0.5}, {0: 0.5, 1: 0.5, 2: 0.5}])
def test_runs_that_are_no_pairs_are_refused(control: dict[int, float]) -> None:
    with pytest.raises(ConfigError, match="no pairs"):
        differences(arm({0: 0.5, 1: 0.75}), arm(control))
    with pytest.raises(ConfigError, match="no pairs"):
        differences([*arm({0: 0.5}), *arm({0: 0.75})], arm({0: 0.5}))


def test_settings_of_an_arm() -> None:
    scratch = with_seeds(settings_of("textures", ["finetune.epochs=3"], pretrain=False), [4, 7])
    assert [(c.seed, c.pretrain, c.finetune.epochs) for c in scratch if c.finetune] == [(4, None, 3), (7, None, 3)]
    assert list(with_seeds(settings_of("textures", finetune=False), [0])[0].phases()) == ["pretrained"]
    [continued] = with_seeds(settings_of("textures", pretrained="a/init.pt"), [0])
    assert (str(continued.pretrained), list(continued.phases())) == ("a/init.pt", ["finetuned"])
