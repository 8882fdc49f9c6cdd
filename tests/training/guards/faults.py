"""Faults to be injected into training."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from attnprobe.training.loop import Trainer
from attnprobe.training.updates.steppers import Eager

Kind = str | None  # "loss": it is NaN; "gradient": its gradient is, and the loss is as it should be


def inject(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Trainer], Kind]) -> None:
    """fault: what is wrong with the update that a trainer is about to make."""
    kinds: dict[Eager, Kind] = {}
    update, losses = Trainer.update, Eager.losses

    def asking(self, batch, epoch):
        kinds[self.stepper] = fault(self)
        return update(self, batch, epoch)

    def spoilt(self, batch, epoch):
        right, kind = losses(self, batch, epoch), kinds.get(self)
        if kind is None:
            return right
        if kind == "loss":
            return dataclasses.replace(right, loss=right.loss * torch.nan)
        steep = sum((p * 0).abs().sqrt().sum() for p in self.model.parameters())  # 0, with gradient 0 / 0
        return dataclasses.replace(right, loss=right.loss + steep)

    monkeypatch.setattr(Trainer, "update", asking)
    monkeypatch.setattr(Eager, "losses", spoilt)


def at(phase: str, *updates: int, kind: str = "loss") -> Callable[[Trainer], Kind]:
    """updates: their numbers in the phase, from 1."""
    return lambda trainer: kind if trainer.name == phase and trainer.progress.step + 1 in updates else None
