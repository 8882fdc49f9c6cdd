"""The trajectory of a run: probing between two steps while it trains, and reading what was recorded."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.files import parse_json, reading
from attnprobe.training.saved.run_directory import RunDirectory

if TYPE_CHECKING:
    from attnprobe.capture.ours import Ours
    from attnprobe.run import RunConfig
    from attnprobe.training.execution import Moment

Record = dict[str, Any]
KEYS = ("run", "phase", "step", "layer", "head", "quantity", "direction")  # what tells rows of one run apart


@dataclasses.dataclass(kw_only=True)
class TrajectoryWriter:
    """Measures on a log-spaced grid of steps and appends the records to the run's trajectory.jsonl.

    A class and not a closure: it must travel to worker processes.
    """

    seed: int  # of the run
    folder: Path
    factor: float
    sequences: int
    subjects: "dict[str, Ours]" = dataclasses.field(default_factory=dict)  # of the phase: it knows what passes take

    def __call__(self, moment: "Moment") -> None:
        from attnprobe.capture import ours
        from attnprobe.probes.trajectory import Trajectory, log_spaced

        if not log_spaced(self.factor, moment.step):
            return
        subject = self.subjects.get(moment.phase)
        if subject is None or subject.model is not moment.model:
            subject = ours.of(moment.model, moment.data.validation, trained=moment.objectives, seed=self.seed)
            self.subjects = {moment.phase: subject}
        found = Trajectory(sequences=self.sequences, seed=self.seed).measure(subject)
        directory = RunDirectory(self.folder)
        place = {"run": str(self.folder), "seed": self.seed, "phase": moment.phase, "step": moment.step}
        directory.append(directory.trajectory, [place | record for record in found])


def writer_for(config: "RunConfig", folder: Path, *, factor: float, sequences: int) -> TrajectoryWriter:
    """That of one run; ConfigError if its model has no scores, so that nothing could be recorded."""
    if not config.model.has_scores and config.model.backbone is None:
        message = "probe_every records attention scores, which models of this mixer have not"
        raise ConfigError(message, hint="leave out --probe-every, or choose model.mixer=attention")
    return TrajectoryWriter(seed=config.seed, folder=folder, factor=factor, sequences=sequences)


def read_runs(folders: Sequence[Path], *, warn: Callable[[str], None]) -> list[Record]:
    """What was recorded in several run directories, one after the other; ConfigError if one is given twice."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("the same run is given twice", hint="leave one of them out")
    return [record for folder in folders for record in read_run(folder, warn=warn)]


def read_run(folder: Path, *, warn: Callable[[str], None]) -> list[Record]:
    """The tidy rows of one run; of a step that was measured twice (after an interruption) the later ones.

    An interruption may also leave half a line at the end: it is left out, and ``warn`` is told. Anything else that is
    no record is an ArtifactError.
    """
    path = RunDirectory(folder).trajectory
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", hint="train with --probe-every 2 to record it")
    records: dict[tuple[Any, ...], Record] = {}
    damaged = 0  # the number of a line that is no record
    with reading(path), path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if damaged:
                raise ArtifactError(f"{path}: line {damaged} is damaged", hint="remove that line")
            try:
                with reading(path):
                    # by the folder it was read from: that of its training may have another's name by now
                    record = shared(check_record(parse_json(line)) | {"run": str(folder)})
                    records[tuple(record[key] for key in KEYS)] = record
            except ArtifactError:
                damaged = number
    if damaged:
        warn(f"the last line of {path} was cut off by an interruption and is left out")
    if not records:
        raise ArtifactError(f"{path} is empty", hint="was the run interrupted before its first step?")
    return list(records.values())


def shared(record: Record) -> Record:
    """With one copy of every name and text for all records: half of the memory that they would take."""
    return {sys.intern(key): sys.intern(v) if isinstance(v, str) else v for key, v in record.items()}


def check_record(record: Record) -> Record:
    """ValueError or KeyError if a row does not hold what tables and figures take from it."""
    kinds = {"run": str, "phase": str, "quantity": str, "step": int, "layer": int, "head": int}
    wrong = [name for name, kind in kinds.items() if type(record[name]) is not kind]
    numbers = {"estimate": record["estimate"], "p_value": record["p_value"], "low": record.get("low")}
    wrong += [name for name, value in (numbers | {"high": record.get("high")}).items() if not is_number(value)]
    if wrong or not isinstance(record["direction"], str | None):
        raise ValueError(f"{wrong[0] if wrong else 'direction'} is of the wrong kind")
    return record


def is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
