"""Losses that stand out."""

import dataclasses
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.training.execute import execute
from attnprobe.training.guards.losses import (
    ROBUST,
    SPREADS,
    TIMES,
    UNKNOWN,
    WINDOW,
    first_bad,
    latest,
    spikes,
    told,
)
from attnprobe.training.loop import Trainer
from tests.training.equality import records


def by_the_book(losses: list[float], before: list[float]) -> list[tuple[int, float]]:
    """Position and usual loss, one after the other."""
    known, found = list(before), []
    for position, loss in enumerate(losses):
        if loss in (UNKNOWN, float("inf")) or loss != loss:
            continue
        window = known[-WINDOW:]
        if len(window) == WINDOW:
            usual = statistics.median_low(window)  # torch's median of an even number
            spread = ROBUST * statistics.median_low([abs(x - usual) for x in window])
            if loss > max(usual + SPREADS * spread, TIMES * usual):
                found.append((position, usual))
        known.append(loss)
    return found


numbers = st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 8.0, 64.0, float("nan"), float("inf"), UNKNOWN])


@given(st.lists(numbers, max_size=130), st.lists(st.sampled_from([1.0, 1.25, 2.0]), max_size=WINDOW))
def test_the_rule_by_hand(losses, before) -> None:
    found = spikes(torch.tensor(losses), torch.tensor(before))
    assert [(spike.position, spike.usual) for spike in found] == by_the_book(losses, before)


def test_what_is_usual_goes_on_over_epochs() -> None:
    losses = torch.tensor([1.0, torch.nan, 3.0, UNKNOWN])
    kept = latest(losses, torch.full((60,), 2.0))
    assert kept.tolist() == [2.0] * (WINDOW - 2) + [1.0, 3.0]
    assert first_bad(losses) == 1
    assert first_bad(torch.tensor([1.0, UNKNOWN])) is None


def test_a_spike_is_told_and_counted(small, monitor, tmp_path, monkeypatch) -> None:
    """A loss that is 50 times as large once, in the last epoch of 11 (of 13 updates each)."""
    real = Trainer.update

    def once(self, batch, epoch):
        sums = real(self, batch, epoch)
        sums[0] *= 50 if self.progress.step == 139 else 1
        return sums

    changes = ("finetune.batch_size=4", "finetune.epochs=11", "model.layers=1", "finetune.optimizer.lr=0.0001")
    config = dataclasses.replace(small(*changes), pretrain=None)
    monkeypatch.setattr(Trainer, "update", once)
    execute(config, tmp_path / "run", device=torch.device("cpu"), monitor=monitor)
    found = [line.get("loss_spikes", 0) for line in records(tmp_path / "run")]
    assert found == [0] * 10 + [1]
    message = next(text for text in monitor.messages if "loss spike" in text)
    assert "1 loss spike in epoch 11, the largest at update 140" in message


def test_words() -> None:
    high = spikes(torch.tensor([9.0, 1.0]), torch.ones(WINDOW))
    assert told(high, 2, 10) == (
        f"1 loss spike in epoch 3, the largest at update 21: 9, where 1 was usual in the {WINDOW} updates before"
    )
    assert high[0].usual == pytest.approx(1)
