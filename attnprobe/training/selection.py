"""What validation numbers decide: which epoch is kept, when a plateau lowers the rate, when a phase ends early."""

import dataclasses
from typing import Literal

from attnprobe.run import Phase

Numbers = dict[str, float]

THRESHOLD = 1e-4  # a plateau ends with a number better by this share of the best, torch's default


def watched(phase: Phase) -> Literal["accuracy", "loss"]:
    """The validation number that the phase goes by: the higher accuracy or the lower loss is better."""
    return phase.selection if phase.selection in ("accuracy", "loss") else phase.objective.metric


def is_better(numbers: Numbers, best: Numbers, phase: Phase) -> bool:
    """Strictly better than the best epoch so far; the first epoch is."""
    if not best:
        return True
    key = f"validation_{watched(phase)}"
    return numbers[key] > best[key] if watched(phase) == "accuracy" else numbers[key] < best[key]


def is_kept(numbers: Numbers, best: Numbers, phase: Phase) -> bool:
    """Whether an epoch replaces the one kept so far; equally good ones do if ``phase.ties`` is "later"."""
    if phase.selection == "last" or is_better(numbers, best, phase):
        return True
    return phase.ties == "later" and not is_better(best, numbers, phase)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plateau:
    """What ``schedule="plateau"`` remembers between epochs (torch's ReduceLROnPlateau with a relative threshold)."""

    best: float | None = None  # the number that the next ones are compared with
    stalled: int = 0  # epochs since then, or since the last reduction
    reductions: int = 0

    def after(self, numbers: Numbers, phase: Phase) -> "Plateau":
        """The state after one more epoch."""
        value = numbers[f"validation_{watched(phase)}"]
        if self.best is None or self._improved(value, watched(phase)):
            return dataclasses.replace(self, best=value, stalled=0)
        if self.stalled < phase.optimizer.patience:
            return dataclasses.replace(self, stalled=self.stalled + 1)
        return dataclasses.replace(self, stalled=0, reductions=self.reductions + 1)

    def _improved(self, value: float, metric: str) -> bool:
        assert self.best is not None
        return value > self.best * (1 + THRESHOLD) if metric == "accuracy" else value < self.best * (1 - THRESHOLD)


def is_exhausted(phase: Phase, epochs: int, improved: int) -> bool:
    """Whether ``phase.patience`` ends it after ``epochs`` epochs, the last better one of which was ``improved``."""
    return phase.patience is not None and epochs - 1 - improved >= phase.patience
