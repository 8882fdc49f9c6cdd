"""The line a person watches while a model trains, on terminals of several widths."""

import io
import re

import pytest
from rich.console import Console

from attnprobe.cli.screen import progress
from attnprobe.cli.screen.progress import TrainingProgress, fitting
from attnprobe.objectives import Classification
from attnprobe.run import Phase

NUMBERS = {"train_loss": 1.2345, "train_accuracy": 0.51, "validation_loss": 1.111, "validation_accuracy": 0.625}


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (60, ["pretrained", "epoch 100/100"], ["train acc", "samples/s"]),
        (80, ["epoch 100/100", "val loss 1.111", "val acc 0.625"], ["train acc", "samples/s"]),
        (170, ["loss 1.234", "train acc 0.510", "val loss 1.111", "val acc 0.625", "samples/s"], []),
    ],
)
def test_numbers_are_chosen_by_width(width: int, shown: list[str], left_out: list[str], monkeypatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    monkeypatch.setattr(progress, "console", terminal)
    with TrainingProgress(quiet=False) as monitor:
        monitor.phase_started("pretrained", Phase(objective=Classification(), epochs=100), 1000, 0)
        monitor.stepped(1000)
        monitor.epoch_finished("pretrained", 99, NUMBERS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")
    last = [line.rstrip() for line in plain.splitlines() if line.strip()][-1]
    assert len(last) <= width
    assert "…" not in last
    for words in shown:
        assert words in last, last
    for words in left_out:
        assert words not in last, last
    assert "left 0:00:00" in last


def test_what_matters_least_goes_first() -> None:
    parts = ["epoch 1/9", "loss 1.0", "train acc 0.1", "val loss 1.0", "val acc 0.1", "12 samples/s"]
    assert fitting(parts, 200) == "  ".join(parts)
    assert fitting(parts, 62) == "epoch 1/9  loss 1.0  train acc 0.1  val loss 1.0  val acc 0.1"
    assert fitting(parts, 22) == "epoch 1/9  val acc 0.1"
    assert fitting(parts, 3) == "epoch 1/9"
