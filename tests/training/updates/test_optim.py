import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.run import Optimizer
from attnprobe.tasks import Spec
from attnprobe.training.updates.optim import learning_rate, make_optimizer


def test_cosine_against_torch() -> None:
    """Warm-up then cosine, step by step, against torch's own schedulers chained."""
    config, steps, warmup = Optimizer(lr=0.3, warmup=7), 53, 7
    parameter = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], lr=0.3)
    rise = torch.optim.lr_scheduler.LinearLR(sgd, start_factor=1 / warmup, total_iters=warmup - 1)
    for step in range(warmup):
        assert learning_rate(config, step, steps) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        rise.step()
    sgd = torch.optim.SGD([parameter], lr=0.3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=steps - warmup)
    for step in range(warmup, steps):
        assert learning_rate(config, step, steps) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        fall.step()


@given(st.floats(0, 1), st.integers(1, 500))
def test_rates_are_positive_until_the_end_and_never_above_the_peak(warmup: float, steps: int) -> None:
    config = Optimizer(lr=2.0, warmup=warmup)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert max(rates) == pytest.approx(2.0)
    assert min(rates) > 0


def test_constant_schedule_and_warmup_in_steps_or_share() -> None:
    constant = Optimizer(lr=1.0, schedule="constant", warmup=4)
    assert [learning_rate(constant, s, 100) for s in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    share = Optimizer(lr=1.0, schedule="constant", warmup=0.04)
    assert learning_rate(share, 0, 100) == 0.25


@pytest.mark.parametrize(("decay", "expected"), [("matrices", {"matrix"}), ("all", {"matrix", "rest"})])
def test_decay_reaches_the_right_parameters(decay: str, expected: set[str]) -> None:
    config = TransformerConfig(d_model=8, heads=2, positions="learned")
    model = make_model(config, Spec(length=5, classes=2, vocabulary=7), "classes", seed=0)
    optimizer = make_optimizer(Optimizer(weight_decay=0.1, decay=decay), model)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]}
    for name, parameter in model.named_parameters():
        kind = "matrix" if parameter.dim() == 2 and not name.startswith(("embedding", "positions")) else "rest"
        assert (id(parameter) in decayed) == (kind in expected), name


@pytest.mark.parametrize("warmup", [0, 5])
def test_inverse_square_root_is_what_the_benchmark_computes(warmup: int) -> None:
    """Long Range Arena: factor * min(1, step / warmup) / sqrt(max(step, warmup)), steps counted from 1."""
    config = Optimizer(lr=0.3, schedule="inverse_sqrt", warmup=warmup)
    factor = 0.3 * max(1, warmup) ** 0.5
    for step in range(40):
        count = step + 1
        expected = factor * min(1, count / max(1, warmup)) / max(count, warmup) ** 0.5
        assert learning_rate(config, step, 40) == pytest.approx(expected)


def test_a_line_falls_from_the_warm_up_to_zero() -> None:
    config = Optimizer(lr=0.3, schedule="linear", warmup=5)
    rates = [learning_rate(config, step, 25) for step in range(26)]
    assert rates[:5] == pytest.approx([0.3 * n / 5 for n in range(1, 6)])
    assert rates[5:] == pytest.approx([0.3 * n / 20 for n in range(20, -1, -1)])
    assert learning_rate(config, 3, 4) == pytest.approx(0.24)  # ended within the warm-up


def test_multistep_against_torch() -> None:
    """7 steps an epoch; torch's scheduler is stepped after each epoch."""
    config = Optimizer(lr=0.3, schedule="multistep", warmup=0, milestones=(2, 3, 7), factor=0.5)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    fall = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones=[2, 3, 7], gamma=0.5)
    for epoch in range(11):
        for step in range(7 * epoch, 7 * epoch + 7):
            assert learning_rate(config, step, 77, epoch=epoch) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        fall.step()
    late = Optimizer(lr=0.3, schedule="multistep", warmup=10, milestones=(1,), factor=0.5)
    assert learning_rate(late, 8, 77, epoch=1) == pytest.approx(0.3 * 0.5 * 9 / 10)


def test_warmup_from_zero_against_torch() -> None:
    """What transformers' constant schedule with warm-up does: the first rate is 0."""
    config = Optimizer(lr=0.3, schedule="constant", warmup=7, warmup_start="zero")
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    rise = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: min(1.0, step / 7))
    for step in range(20):
        assert learning_rate(config, step, 20) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        rise.step()


@pytest.mark.parametrize(
    "setting",
    [
        {"schedule": "multistep"},
        {"milestones": (3,)},
        {"schedule": "multistep", "milestones": (3, 3)},
        {"schedule": "multistep", "milestones": (0, 3)},
        {"factor": 1.0},
        {"patience": -1},
    ],
    ids=str,
)
def test_schedules_that_make_no_sense_are_refused(setting: dict) -> None:
    with pytest.raises(ConfigError, match=r"milestones|factor|patience"):
        Optimizer(**setting)
