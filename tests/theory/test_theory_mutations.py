"""Every prediction is load-bearing: altered by a sign or a factor of 2, at least one row fails."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from theory import predictions
from theory.checks import CLAIMS, Claim
from theory.claims import code_factors
from theory.setting import Setting

PREDICTIONS = [
    name for name, function in inspect.getmembers(predictions, inspect.isfunction) if not name.startswith("_")
]
SETTING = Setting(length=9, dim=3, seed=1, draws=6000)


def users(name: str) -> list[Claim]:
    """The claims whose module calls the prediction."""
    sources = {claim.name: Path(inspect.getfile(claim.rows)).read_text() for claim in CLAIMS}
    sources["C7"] += Path(code_factors.__file__).read_text()
    return [claim for claim in CLAIMS if f"predictions.{name}(" in sources[claim.name]]


def alter(monkeypatch: pytest.MonkeyPatch, name: str, factor: float) -> None:
    original = getattr(predictions, name)
    monkeypatch.setattr(predictions, name, lambda *args, **options: factor * original(*args, **options))


def test_all_predictions_are_found():
    assert len(PREDICTIONS) > 30


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_readme_states_every_prediction(name):
    assert f"`{name}`" in (Path(predictions.__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_altered_predictions_fail(name, monkeypatch):
    claims = users(name)
    assert claims, f"no claim uses {name}"
    claim = min(claims, key=lambda claim: claim.name in ("C3", "C6"))  # the cheap ones first
    for factor in (-1, 2):
        with monkeypatch.context() as patch:
            alter(patch, name, factor)
            try:
                failed = [row.quantity for row in claim.rows(SETTING) if not row.passed]
            except ValueError:
                # The root of a variance whose sign was changed: the check stops, which is a failure too.
                assert factor == -1
                assert "moments" in name or "signal" in name
                continue
            assert failed, f"{factor} x {name} passes every row of {claim.name}"


def test_altering_nothing_fails_nothing(monkeypatch):
    for name in PREDICTIONS:
        alter(monkeypatch, name, 1)
    for claim in CLAIMS:
        assert all(row.passed for row in claim.rows(SETTING))


def test_a_nonzero_prediction_is_never_copied_from_the_measurement():
    """Rounding differs where code differs: most real-valued agreements must not be bit for bit."""
    rows = [row for claim in CLAIMS for row in claim.rows(SETTING)]
    real = [row for row in rows if not row.control and row.predicted != round(row.predicted)]
    assert np.mean([row.error == 0 for row in real]) < 0.2
