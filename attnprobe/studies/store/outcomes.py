"""From the store to what is known of every run of a study."""

import contextlib
import math
from collections.abc import Mapping, Sequence

from attnprobe.errors import ArtifactError
from attnprobe.studies.plan.keys import Planned, digest
from attnprobe.studies.store.folder import Store
from attnprobe.studies.study import Measure, Outcome


def outcomes(store: Store, runs: Sequence[Planned], measures: Mapping[str, Measure]) -> list[Outcome]:
    """One for each run in order; without numbers where there are none (yet). Damaged files count as missing."""
    found: dict[str, dict[str, float]] = {}
    return [_outcome(store, planned, measures, found) for planned in runs]


def _outcome(
    store: Store, planned: Planned, measures: Mapping[str, Measure], found: dict[str, dict[str, float]]
) -> Outcome:
    numbers = dict(_numbers(store, planned.key, found))
    before = planned.pretraining
    if numbers and before is not None:  # of the whole run, though other arms may share it
        numbers["seconds"] = numbers.get("seconds", 0.0) + _numbers(store, before, found).get("seconds", 0.0)
    for name, measure in measures.items() if numbers else ():
        with contextlib.suppress(ArtifactError):
            known = store.measured(measured_run(planned, measure), measure_key(measure)) or {}
            number = known.get(measure.quantity, math.nan)
            if math.isfinite(number):
                numbers[name] = number
    folder = store.run(planned.key) if numbers else None
    pretraining = store.run(before) if before is not None and numbers else None
    return Outcome(
        place=planned.arm.place,
        seed=planned.seed,
        trial=planned.arm.trial,
        numbers=numbers,
        folder=folder,
        pretraining=pretraining,
    )


def _numbers(store: Store, key: str, found: dict[str, dict[str, float]]) -> dict[str, float]:
    if key not in found:
        try:
            found[key] = store.numbers(key)
        except ArtifactError:
            found[key] = {}
    return found[key]


def measured_run(planned: Planned, measure: Measure) -> str:
    """The key of the run that has the measure's checkpoint: what pretraining left belongs to the run it was."""
    earlier = planned.pretraining if measure.checkpoint in ("init", "pretrained") else None
    return earlier or planned.key


def has_checkpoint(planned: Planned, measure: Measure) -> bool:
    """Whether a run of this arm leaves that checkpoint at all."""
    if measure.checkpoint == "init":
        return True
    if measure.checkpoint == "pretrained":
        return planned.pretraining is not None or planned.last == "pretrained"
    return planned.last == "finetuned"


def measure_key(measure: Measure) -> str:
    """Of everything that decides what is measured; all quantities of a probe are measured together."""
    return digest([measure.probe, measure.checkpoint, measure.settings])
