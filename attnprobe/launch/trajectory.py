"""Probing between two steps of a run that is being trained."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnprobe.models import Transformer
    from attnprobe.objectives import Objective
    from attnprobe.run import RunConfig
    from attnprobe.tasks import Data


@dataclasses.dataclass(frozen=True, kw_only=True)
class TelemetryWriter:
    """Measures on a log-spaced grid of steps and appends the records to the run's telemetry.jsonl.

    A class and not a closure: it must travel to worker processes.
    """

    config: "RunConfig"
    folder: Path
    factor: float
    sequences: int

    def __call__(self, phase: str, step: int, model: "Transformer", data: "Data") -> None:
        from attnprobe.capture import ours
        from attnprobe.probes.trajectory import Telemetry, log_spaced
        from attnprobe.training.saved.run_directory import RunDirectory

        if not log_spaced(self.factor, step):
            return
        seed = self.config.seed
        subject = ours.of(model, data.validation, trained=trained_for(self.config), seed=seed)
        found = Telemetry(sequences=self.sequences, seed=seed).measure(subject)
        directory = RunDirectory(self.folder)
        place = {"run": str(self.folder), "seed": self.config.seed, "phase": phase, "step": step}
        directory.append(directory.telemetry, [place | record for record in found])


@cache  # it may have to read a checkpoint
def trained_for(config: "RunConfig") -> "tuple[Objective, ...]":
    """The objectives of a run, with that of the self-pretraining it starts from."""
    from attnprobe.training.saved.checkpoint import starting_point

    _, pretrain = starting_point(config)
    return tuple(phase.objective for phase in (pretrain, config.finetune) if phase is not None)
