"""What validation numbers decide, against torch's scheduler and against plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import ConfigError
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction, Regression
from attnprobe.run import Optimizer, Phase
from attnprobe.training.selection import Plateau, is_better, is_exhausted, is_kept, watched

VALUES = st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=1, max_size=60)


@given(VALUES, st.integers(0, 4), st.sampled_from([Classification(), Regression()]))
def test_plateau_against_torch(values: list[float], patience: int, objective) -> None:
    phase = Phase(objective=objective, optimizer=Optimizer(schedule="plateau", factor=0.2, patience=patience))
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    mode = "max" if watched(phase) == "accuracy" else "min"
    fall = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, mode=mode, factor=0.2, patience=patience, eps=0.0)
    state = Plateau()
    for value in values:
        state = state.after({f"validation_{watched(phase)}": value}, phase)
        fall.step(value)
        assert 0.2**state.reductions == pytest.approx(sgd.param_groups[0]["lr"])


@given(VALUES, st.sampled_from(["accuracy", "loss"]), st.sampled_from(["earlier", "later"]), st.integers(1, 4))
def test_kept_epoch_and_patience(values: list[float], metric: str, ties: str, patience: int) -> None:
    phase = Phase(objective=Classification(), selection=metric, ties=ties, patience=patience)
    kept, improved, best, stopped = -1, -1, {}, None
    for epoch, value in enumerate(values):
        numbers = {f"validation_{metric}": value}
        improved = epoch if is_better(numbers, best, phase) else improved
        if is_kept(numbers, best, phase):
            kept, best = epoch, numbers
        if stopped is None and is_exhausted(phase, epoch + 1, improved):
            stopped = epoch
    top = max(values) if metric == "accuracy" else min(values)
    places = [epoch for epoch, value in enumerate(values) if value == top]
    assert kept == (places[0] if ties == "earlier" else places[-1])
    seen = [(max if metric == "accuracy" else min)(values[: e + 1]) for e in range(len(values))]
    waited = [e for e in range(patience, len(values)) if seen[e] == seen[e - patience]]
    assert stopped == (waited[0] if waited else None)


def test_which_number_is_watched() -> None:
    tokens, values = MaskedReconstruction(loss="cross_entropy"), MaskedReconstruction(loss="l1")
    assert watched(Phase(objective=tokens)) == "loss"
    assert watched(Phase(objective=tokens, selection="accuracy")) == "accuracy"
    assert watched(Phase(objective=Classification())) == "accuracy"
    assert watched(Phase(objective=Classification(), selection="loss")) == "loss"
    for objective in (values, Regression(), CausalPrediction(loss="l2")):
        with pytest.raises(ConfigError, match="selection cannot be 'accuracy'"):
            Phase(objective=objective, selection="accuracy")
    last = Phase(objective=values, selection="last")
    assert is_kept({"validation_loss": 9.0}, {"validation_loss": 1.0}, last)
    with pytest.raises(ConfigError, match="needs a number to watch"):
        Phase(objective=values, selection="last", patience=3)
