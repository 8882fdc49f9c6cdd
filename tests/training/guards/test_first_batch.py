"""The run's arithmetic against float32 on the first batch of every phase."""

import dataclasses
import json

import pytest
import torch

from attnprobe.errors import RunError
from attnprobe.training.execute import execute
from attnprobe.training.guards import first_batch
from attnprobe.training.updates.steppers import Eager
from tests.training.equality import assert_equal_runs

CPU = torch.device("cpu")


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Losses in bfloat16 are multiplied; those in float32 are as they should be."""
    real = Eager.losses

    def losses(self, batch, epoch):
        right = real(self, batch, epoch)
        wrong = torch.is_autocast_enabled("cpu")
        return dataclasses.replace(right, loss=right.loss * factor) if wrong else right

    monkeypatch.setattr(Eager, "losses", losses)


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-6), ("bfloat16", 0.05)])
def test_the_manifest_says_how_far_the_arithmetic_is_off(small, monitor, tmp_path, precision, most) -> None:
    execute(small(f"engine.precision={precision}"), tmp_path / "run", device=CPU, monitor=monitor)
    found = json.loads((tmp_path / "run" / "manifest.json").read_text())["first_batch"]
    assert set(found) == {"pretrained", "finetuned"}
    for phase, size in (("pretrained", 11), ("finetuned", 13)):
        assert found[phase]["against"] == "float32, eager, attention math"
        assert found[phase]["sequences"] == size
        assert 0 <= found[phase]["loss"] <= most
        assert (1e-3 if precision == "bfloat16" else 0) <= found[phase]["gradient"] <= most


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 2.0])
def test_wrong_numbers_are_refused_before_anything_is_trained(small, monitor, tmp_path, monkeypatch, factor) -> None:
    spoil(monkeypatch, factor)
    with pytest.raises(RunError, match="cannot be trained in bfloat16, eager, attention flash") as caught:
        execute(small("engine.precision=bfloat16"), tmp_path / "run", device=CPU, monitor=monitor)
    assert "--precision float32" in caught.value.hint
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    execute(small(), tmp_path / "float32", device=CPU, monitor=monitor)


def test_comparing_changes_nothing(small, monitor, tmp_path, monkeypatch) -> None:
    """Batch norms keep their averages, dropout its counters."""
    changes = ("model.norm=batch", "model.dropout=0.3")
    execute(small(*changes), tmp_path / "compared", device=CPU, monitor=monitor)
    monkeypatch.setattr("attnprobe.training.execute.check_first_batch", lambda trainer: {})
    execute(small(*changes), tmp_path / "not", device=CPU, monitor=monitor)
    assert_equal_runs(tmp_path / "compared", tmp_path / "not")


def test_large_scores_are_compared_on_fewer_sequences(small, monitor, tmp_path, monkeypatch) -> None:
    config = small()
    one = 4 * config.model.layers * config.model.heads * 26**2  # 25 positions and the token of the readout
    monkeypatch.setattr(first_batch, "SCORES", 3 * one)
    execute(config, tmp_path / "some", device=CPU, monitor=monitor)
    monkeypatch.setattr(first_batch, "SCORES", one - 1)
    execute(config, tmp_path / "none", device=CPU, monitor=monitor)
    found = [json.loads((tmp_path / name / "manifest.json").read_text())["first_batch"] for name in ("some", "none")]
    assert found[0]["finetuned"]["sequences"] == 3
    assert found[1]["finetuned"] | {"loss": 0, "gradient": 0} == {
        "against": "float32, eager, attention flash", "sequences": 13, "loss": 0, "gradient": 0,
    }  # fmt: skip


def test_a_model_that_is_wrong_itself_is_not_the_arithmetics_fault(small, monitor, tmp_path, monkeypatch) -> None:
    real = Eager.losses

    def losses(self, batch, epoch):
        right = real(self, batch, epoch)
        return dataclasses.replace(right, loss=right.loss * float("nan"))

    monkeypatch.setattr(Eager, "losses", losses)
    with pytest.raises(RunError, match=r"update 1 \(epoch 1\) has loss nan"):
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor)
