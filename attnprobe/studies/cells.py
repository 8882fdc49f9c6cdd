"""A number of the runs at every place of a study's grid: its mean over seeds, at the best settings tried there."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from attnprobe.errors import ConfigError
from attnprobe.statistics.intervals import Interval, student_interval
from attnprobe.studies.study import Outcome, Settings, Study

Place = dict[str, str]  # axis -> name of the choice
Key = tuple[str, ...]  # the names alone, in the order of the axes
# What decides between trials, the first one that all of them have: larger is better with the sign +1.
CRITERIA = {"validation_accuracy": 1, "validation_r2": 1, "validation_loss": -1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The runs that stand at one place, of the trial that counts."""

    place: Place
    number: str
    values: dict[int, float]  # seed -> the number
    seeds: int  # how many are asked for
    trial: Settings = dataclasses.field(default_factory=dict)  # the tuned settings that were best
    remarks: tuple[str, ...] = ()  # what a reader should know of how they were chosen

    @property
    def key(self) -> Key:
        return tuple(self.place.values())

    @property
    def state(self) -> Literal["missing", "incomplete", "complete"]:
        return "missing" if not self.values else "complete" if len(self.values) >= self.seeds else "incomplete"

    @functools.cached_property
    def interval(self) -> Interval | None:
        """Of the mean over seeds, 95 %, by Student's t; None without any run."""
        return student_interval(list(self.values.values()), unit=self.number) if self.values else None

    @property
    def spread(self) -> float:
        """Standard deviation between seeds; NaN of fewer than two."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan


def cells(outcomes: Iterable[Outcome], number: str) -> dict[Key, Cell]:
    """All places, in the order of the outcomes, which name the runs that are missing, too (without numbers)."""
    places: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        places.setdefault(tuple(outcome.place.values()), []).append(outcome)
    return {key: _cell(found, number) for key, found in places.items()}


def _cell(outcomes: Sequence[Outcome], number: str) -> Cell:
    trials: dict[tuple[object, ...], list[Outcome]] = {}
    for outcome in outcomes:
        trials.setdefault(tuple(outcome.trial.items()), []).append(outcome)
    chosen, remarks = next(iter(trials.values())), ()
    if len(trials) > 1:
        chosen, remarks = best_trial(list(trials.values()))
    values = {outcome.seed: outcome.numbers[number] for outcome in chosen if number in outcome.numbers}
    finite = {seed: value for seed, value in sorted(values.items()) if math.isfinite(value)}
    if len(finite) < len(values):
        remarks = (*remarks, f"{len(values) - len(finite)} of its runs ended without a finite number")
    return Cell(
        place=outcomes[0].place, number=number, values=finite, seeds=len({o.seed for o in outcomes}),
        trial=chosen[0].trial if chosen else {}, remarks=remarks,
    )  # fmt: skip


def best_trial(trials: Sequence[Sequence[Outcome]]) -> tuple[Sequence[Outcome], tuple[str, ...]]:
    """The trial that is best on validation data on the average over the seeds that all trials have; and remarks.

    Trials without any run are left out, and counted in a remark; nothing is chosen where no seed has all others.
    """
    begun = [trial for trial in trials if any(o.numbers for o in trial)]
    if not begun:
        return [], ()
    remarks = (
        [f"{len(trials) - len(begun)} of {len(trials)} trials have no run yet"] if len(begun) < len(trials) else []
    )
    measured = [{o.seed: o.numbers for o in trial if o.numbers} for trial in begun]
    common = sorted(set.intersection(*(set(runs) for runs in measured)))
    if not common:
        return [], (*remarks, "no seed has all trials that were begun: nothing is chosen yet")
    criterion = next((c for c in CRITERIA if all(c in runs[seed] for runs in measured for seed in common)), None)
    if criterion is None:
        return [], (*remarks, "its runs have no validation data to choose by")
    planned = len({o.seed for trial in trials for o in trial})
    if len(common) < planned:
        remarks.append(f"chosen on {len(common)} of {planned} seeds")
    scores = [CRITERIA[criterion] * np.mean([runs[seed][criterion] for seed in common]) for runs in measured]
    best = begun[int(np.argmax(np.nan_to_num(scores, nan=-math.inf)))]
    return best, (*remarks, *_edges(best[0].trial, [trial[0].trial for trial in trials]))


def _edges(best: Settings, tried: Sequence[Settings]) -> list[str]:
    """Settings whose best value is the smallest or the largest that was tried: a better one may lie beyond."""
    remarks = []
    for name, value in best.items():
        values = {trial[name] for trial in tried}
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numeric and len(values) > 1 and value in (min(values), max(values)):
            remarks.append(f"{name}={value:g} is at the edge of what was tried")
    return remarks


def check_covered(study: Study, found: Iterable[Cell], axes: Iterable[str], where: str) -> None:
    """ConfigError if places that a table or figure would put together differ in an axis that it leaves out."""
    taken: dict[str, set[str]] = {}
    for cell in found:
        for axis, name in cell.place.items():
            taken.setdefault(axis, set()).add(name)
    out = [axis for axis, names in taken.items() if len(names) > 1 and axis not in set(axes)]
    if out:
        reason = f"{where} leaves out the axis {out[0]}, which has {len(taken[out[0]])} choices"
        raise ConfigError(reason, hint=f"give it a row, a column or a panel, or keep one choice by only.{out[0]}")


def label(study: Study, axis: str, name: str) -> str:
    """What tables call a choice."""
    return study.axes[axis][name].label or name
