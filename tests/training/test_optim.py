import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.models import TransformerConfig, make_model
from attnprobe.run import Optimizer
from attnprobe.tasks import Spec
from attnprobe.training.optim import learning_rate, make_optimizer


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
    optimizer = make_optimizer(Optimizer(weight_decay=0.1, decay=decay), model.named_parameters())
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]}
    for name, parameter in model.named_parameters():
        kind = "matrix" if parameter.dim() == 2 and not name.startswith(("embedding", "positions")) else "rest"
        assert (id(parameter) in decayed) == (kind in expected), name
