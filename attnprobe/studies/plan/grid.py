"""The places of a study's grid, each with the settings of the run that stands there."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from attnprobe import presets
from attnprobe.config import Table, assigned, override
from attnprobe.studies.study import Choice, Settings, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A place of the grid at one trial of what is tuned: runs that differ in nothing but the seed."""

    place: dict[str, str]  # axis -> choice
    trial: Settings  # the tuned settings
    table: Table  # the settings of its run, without a seed

    def name(self) -> str:
        """For people."""
        tried = [f"{key.rpartition('.')[2]} {value}" for key, value in self.trial.items()]
        return ", ".join([*self.place.values(), *tried])


def arms(study: Study, scale: str, settings: Sequence[str] = ()) -> list[Arm]:
    """All places of the grid at a scale, times all trials, in the order of the axes.

    study: as ``Source.at`` gives it; settings: "section.key=value" of every run, which win over everything else.
    """
    own, found, read = study.scales[scale], [], dict[str, Table]()
    for place, choices in _places(study, scale):
        cases = [case for case in study.cases if case.at.items() <= place.items()]
        said = [part.preset for part in (own, *choices, *cases) if part.preset]
        preset = said[-1].format_map(place)
        if preset not in read:
            read[preset] = presets.read_table(preset)
        for trial in _trials(study.tune):
            table = read[preset]
            for part in (study.settings, own.settings, *(one.settings for one in (*choices, *cases)), trial):
                table = assigned(table, part) if part else table
            table = dict(override(table, settings) if settings else table)
            for phase in ("pretrain", "finetune"):
                if not all(getattr(choice, phase) for choice in choices):
                    table.pop(phase, None)
            table.pop("seed", None)
            found.append(Arm(place=place, trial=trial, table=table))
    return found


def _places(study: Study, scale: str) -> Iterator[tuple[dict[str, str], list[Choice]]]:
    only = study.scales[scale].only
    taken = [[name for name in choices if name in only.get(axis, choices)] for axis, choices in study.axes.items()]
    for names in itertools.product(*taken):
        place = dict(zip(study.axes, names, strict=True))
        if not any(skip.items() <= place.items() for skip in study.skip):
            yield place, [study.axes[axis][name] for axis, name in place.items()]


def _trials(tune: Mapping[str, Sequence[object]]) -> list[Settings]:
    return [dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values())]
