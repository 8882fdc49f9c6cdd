"""Saving the members of an ensemble at one step, so that a killed one goes on exactly.

The last bits of a member's numbers depend on who is stacked with it, so members must not go on from different steps.
Each save has two parts: all members write ``resume.next.pt``; when all have, each renames it to ``resume.pt``. At any
moment there is a step that every member has in one of its two files, and the latest of these is where they go on.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnprobe.training import execute
from attnprobe.training.execution import Execution
from attnprobe.training.loop import Trainer
from attnprobe.training.saved.resuming import read_state
from attnprobe.training.saved.run_directory import STAGES, RunDirectory

Place = tuple[int, int]  # phase, updates made in it


class GroupSaves:
    """The saves of runs that go in step."""

    def __init__(self, executions: Sequence[Execution]) -> None:
        self.executions = executions
        self.last = time.perf_counter()
        for execution in executions:
            execution.in_group = True
        if all(execution.resume for execution in executions):
            self._go_on_from_one_step()

    def due(self) -> bool:
        return time.perf_counter() - self.last >= execute.SECONDS_BETWEEN_SAVES

    def save(self, trainers: Mapping[int, Trainer]) -> None:
        """Save the members that still train, by number, each standing between two updates."""
        for number, trainer in trainers.items():
            execute.write_resume(self.executions[number], trainer)
        self.commit(trainers)

    def commit(self, numbers: Sequence[int] | Mapping[int, Trainer]) -> None:
        """All of these have written: from now on this is where they go on."""
        for directory in (self.executions[number].directory for number in numbers):
            if directory.resume_next.exists():
                directory.resume_next.replace(directory.resume)
        self.last = time.perf_counter()

    def _go_on_from_one_step(self) -> None:
        """Members that share no step (they were trained apart) go on from their own; the one behind catches up."""
        unfinished = [e for e in self.executions if not e.directory.result.exists()]
        saved = [_saved_places(e.directory) for e in unfinished]
        common = set.intersection(*map(set, saved)) if saved else set()
        if common:
            for execution, places in zip(unfinished, saved, strict=True):
                execution.resume_from = places[max(common)]


def _saved_places(directory: RunDirectory) -> dict[Place, Path]:
    places: dict[Place, Path] = {}
    for path in (directory.resume_next, directory.resume):
        if path.exists():
            document = read_state(path)
            step = document["trainer"]["progress"]["step"]
            places[STAGES.index(document["phase"]), step] = path
    return places
