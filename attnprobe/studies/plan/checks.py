"""What a study's file can say that makes no sense: told in one line before anything runs."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

from attnprobe.config import did_you_mean, require
from attnprobe.errors import shown
from attnprobe.studies.published import COLUMNS
from attnprobe.studies.study import Figure, Layout, Study

SPLITS, NUMBERS = ("train", "validation", "test"), ("accuracy", "loss", "r2")
RESULTS = (*(f"{split}_{number}" for split in SPLITS for number in NUMBERS), "seconds")  # of result.json
MOST_RUNS = 100_000
RECORDED = (  # quantities of trajectory.jsonl
    "proximity_bias", "score_sd", "label.t", "label.t.null", "label.dependent.mean", "label.dependent.t",
    "reconstruction.t",
)  # fmt: skip


def check(study: Study, scale: str) -> None:
    """ConfigError for the first thing in a study, as it is at this scale, that cannot be meant."""
    for place, names in (("tables", study.tables), ("figures", study.figures), ("scales", study.scales)):
        for name in names:  # which become names of files and folders
            plain = re.fullmatch(r"[\w-]+", name) is not None
            require(plain, f"{place}.{name}", "must be a name of letters, digits, - and _")
    require(
        bool(study.axes), "axes", "is empty", hint="give at least one, like [axes.arm.scratch] with pretrain = false"
    )
    for axis, choices in study.axes.items():
        require(axis.isidentifier(), f"axes.{axis}", "must be a name like arm or data_size")
        require(bool(choices), f"axes.{axis}", "has no choices")
    own = study.scales[scale]
    for axis, taken in own.only.items():
        place = f"scales.{scale}.only"
        _axis(study, place, axis)
        require(bool(taken), f"{place}.{axis}", "leaves no choice")
        for choice in taken:
            _choice(study, f"{place}.{axis}", axis, choice)
    for number, skip in enumerate(study.skip):
        require(bool(skip), f"skip[{number}]", "would leave out everything")
        for axis, choice in skip.items():
            _axis(study, f"skip[{number}]", axis)
            _choice(study, f"skip[{number}].{axis}", axis, choice)
    for number, case in enumerate(study.cases):
        require(bool(case.at), f"cases[{number}].at", "is empty, so it would hold everywhere", "say it in settings")
        for axis, choice in case.at.items():
            _axis(study, f"cases[{number}].at", axis)
            _choice(study, f"cases[{number}].at.{axis}", axis, choice)
        _template(study, f"cases[{number}].preset", case.preset or "")
    _check_presets(study, scale)
    _check_seeds(study, scale)
    check_size(study, scale, study.scales[scale].seeds)
    for name, values in study.tune.items():
        require(bool(values), f"tune.{name}", "has no values to try")
    for name, layout in study.tables.items():
        _check_layout(study, f"tables.{name}", layout)
    for name, figure in study.figures.items():
        _check_figure(study, f"figures.{name}", figure)


def check_size(study: Study, scale: str, seeds: int) -> None:
    """ConfigError if the grid, with all that ``skip`` may leave out, has more runs than anybody carries out."""
    only = study.scales[scale].only
    places = [len(only.get(axis, choices)) for axis, choices in study.axes.items()]
    runs = math.prod([*places, *map(len, study.tune.values()), seeds])
    message = f"asks for {runs:,} runs ({seeds:,} seeds), more than the {MOST_RUNS:,} that a study may have"
    require(runs <= MOST_RUNS, f"scales.{scale}", message, "take fewer seeds, or fewer choices by only")


def check_texts(value: object, where: str = "") -> None:
    """ConfigError for control characters, which terminals and figures would obey; a question may have lines."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            place = f"{where}.{key}" if where else str(key)
            check_texts(key, shown(place)[1:-1])
            check_texts(part, shown(place)[1:-1])
    elif isinstance(value, list):
        for number, part in enumerate(value):
            check_texts(part, f"{where}[{number}]")
    elif isinstance(value, str):
        text = value.replace("\n", "").replace("\t", "") if where in ("question", "reproduces") else value
        plain = not any(unicodedata.category(character) == "Cc" for character in text)
        require(plain, where, f"holds control characters: {shown(value)}", "leave them out")


def _check_presets(study: Study, scale: str) -> None:
    """Every place of the grid needs one preset: of the scale, or of the choices of one axis, each of which has one."""
    own = study.scales[scale]
    taken = {axis: {name: c for name, c in choices.items() if name in own.only.get(axis, choices)}
             for axis, choices in study.axes.items()}  # fmt: skip
    saying = [axis for axis, choices in taken.items() if any(choice.preset for choice in choices.values())]
    sources = [*([f"scales.{scale}.preset"] if own.preset else []), *(f"axes.{axis}" for axis in saying)]
    require(bool(sources), f"scales.{scale}.preset", "is missing", hint="say it there, or in all choices of one axis")
    require(len(sources) == 1, f"scales.{scale}", f"has two presets for one run: {' and '.join(sources)}", "keep one")
    _template(study, f"scales.{scale}.preset", own.preset or "")
    for axis in saying:
        for name, choice in taken[axis].items():
            where = f"axes.{axis}.{name}"
            _template(study, f"{where}.preset", choice.preset or "")
            require(choice.preset is not None, where, "has no preset at scale " + scale, "the others of its axis do")


def _check_seeds(study: Study, scale: str) -> None:
    """Every run has the seed that the scale, or --seeds, gives it; another one would silently count for nothing."""
    said = {"settings": study.settings, "tune": study.tune, f"scales.{scale}.settings": study.scales[scale].settings}
    for axis, choices in study.axes.items():
        said |= {f"axes.{axis}.{name}.settings": choice.settings for name, choice in choices.items()}
    said |= {f"cases[{number}].settings": case.settings for number, case in enumerate(study.cases)}
    for where, settings in said.items():
        require("seed" not in settings, f"{where}.seed", "is no setting of a study", f"say scales.{scale}.seeds")


def _template(study: Study, where: str, text: str) -> None:
    """{axis} is replaced by what stands for the place on that axis."""
    for axis in re.findall(r"\{([^{}]*)\}", text):
        _axis(study, where, axis)
    plain = re.sub(r"\{[^{}]*\}", "", text)
    require(not set("{}") & set(plain), where, "has a brace that names no axis", "write it as {axis}")


def _check_layout(study: Study, where: str, layout: Layout) -> None:
    require(bool(layout.rows), f"{where}.rows", "is empty")
    for key, axes in (("rows", layout.rows), ("columns", layout.columns)):
        for axis in axes:
            _axis(study, f"{where}.{key}", axis)
    twice = sorted({axis for axis in layout.columns if axis in layout.rows})
    require(not twice, f"{where}.columns", f"{', '.join(twice)} is in the rows already")
    _number(study, where, layout.number)
    both = (layout.compare is None) == (layout.against is None)
    missing, other = ("against", "compare") if layout.compare else ("compare", "against")
    require(both, f"{where}.{missing}", f"is missing beside {other}")
    if layout.compare is not None and layout.against is not None:
        _axis(study, f"{where}.compare", layout.compare)
        _choice(study, f"{where}.against", layout.compare, layout.against)
    for column, template in layout.published.items():
        _published(study, f"{where}.published", column, template)


def _published(study: Study, where: str, column: str, template: str) -> None:
    known = COLUMNS[:-1]
    require(column in known, f"{where}.{column}", "is no column of published.csv", did_you_mean(column, known))
    _template(study, f"{where}.{column}", template)


def _check_figure(study: Study, where: str, figure: Figure) -> None:
    for key in ("x", "lines", "panels"):
        axis = getattr(figure, key)
        if axis is not None:
            _axis(study, f"{where}.{key}", axis)
    if figure.kind == "trajectory":
        require(figure.x is None, f"{where}.x", "is always updates where kind is 'trajectory'", "leave it out")
        recorded = study.trajectory_every is not None
        require(
            recorded, f"{where}.kind", "'trajectory' needs trajectory_every, which says when to record", "2 is usual"
        )
        _known(f"{where}.number", figure.number, RECORDED)
    else:
        require(figure.x is not None, f"{where}.x", "is missing", hint=f"choose from {', '.join(study.axes)}")
        _number(study, where, figure.number)
    if figure.against is not None:
        key = "panels" if figure.kind == "map" else "lines"
        axis = getattr(figure, key)
        require(axis is not None, f"{where}.{key}", "is missing beside against")
        _choice(study, f"{where}.against", str(axis), figure.against)
    if figure.boundary is not None:
        require(figure.kind == "map", f"{where}.boundary", "can only be drawn where kind is 'map'", "leave it out")
        _known(f"{where}.boundary", figure.boundary, study.measures)


def _axis(study: Study, where: str, axis: str) -> None:
    require(axis in study.axes, where, f"names no axis of this study: {axis!r}", did_you_mean(axis, study.axes))


def _choice(study: Study, where: str, axis: str, name: str) -> None:
    known: Mapping[str, object] = study.axes[axis]
    require(name in known, where, f"names no choice of axis {axis}: {name!r}", did_you_mean(name, known))


def _number(study: Study, where: str, number: str) -> None:
    _known(f"{where}.number", number, (*RESULTS, *study.measures))


def _known(where: str, number: str, known: Iterable[str]) -> None:
    known = list(known)
    require(number in known, where, f"{number!r} is neither in result.json nor a measure", did_you_mean(number, known))
