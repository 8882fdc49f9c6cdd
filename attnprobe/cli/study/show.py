"""attnprobe study show: what a study asks, and of which runs it consists."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from attnprobe.cli.screen.output import Json, print_json, print_table, print_verdict, say
from attnprobe.cli.study.options import STUDIES, Name, Out, RunSettings, ScaleName, Seeds, requested

if TYPE_CHECKING:
    from attnprobe.studies.request import Request


def show(
    name: Name,
    scale: ScaleName = None,
    seeds: Seeds = None,
    settings: RunSettings = None,
    out: Out = STUDIES,
    json: Json = False,
) -> None:
    """Show a study: its question, its axes and arms, and how many runs each of its scales has.

    Examples:

        attnprobe study show qk-transfer

        attnprobe study show qk-transfer --scale paper --json
    """
    asked = requested(name, scale, seeds, settings, out)
    scales = {}
    for each in asked.source.study.scales:
        own = seeds if each == asked.scale else None
        counted = asked if each == asked.scale else requested(name, each, own, settings, out)
        runs = counted.runs
        distinct = {key for run in runs for key in (run.key, run.pretraining) if key}
        scales[each] = {"seeds": len(counted.seeds), "runs": len(runs), "trainings": len(distinct)}
    if json:
        print_json(described(asked) | {"scales": scales})
        return
    study = asked.study
    print_verdict(study.title)
    print_verdict(study.question)
    if study.reproduces:
        print_verdict(f"Reproduces: {study.reproduces}")
    choices = [
        [axis, name, choice.label or name] for axis, found in study.axes.items() for name, choice in found.items()
    ]
    print_table(f"\naxes at scale {asked.scale}", ["axis", "choice", "called"], choices, numeric_from=3, keys=2)
    rows = [[each, *(f"{number:,}" for number in numbers.values())] for each, numbers in scales.items()]
    print_table("\nscales", ["scale", "seeds", "runs", "distinct trainings"], rows)
    for names in coinciding(asked):
        say(f"the same run, which is trained once: {'; '.join(names)}")
    say(f"next: attnprobe study run {name} --scale {asked.scale} --dry-run")


def described(asked: "Request") -> dict[str, Any]:
    study = asked.study
    return {
        "study": asked.name,
        "title": study.title,
        "question": study.question,
        "reproduces": study.reproduces,
        "scale": asked.scale,
        "axes": {axis: {name: c.label or name for name, c in found.items()} for axis, found in study.axes.items()},
        "arms": [{"place": arm.place, "trial": arm.trial} for arm in asked.arms],
        "same": coinciding(asked),
    }


def coinciding(asked: "Request") -> list[list[str]]:
    """Names of arms that ask for the same runs."""
    found = defaultdict[str, list[str]](list)
    for planned in asked.runs:
        if planned.seed == asked.seeds[0]:
            found[planned.key].append(planned.arm.name())
    return [names for names in found.values() if len(names) > 1]
