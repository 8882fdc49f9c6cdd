"""What a study is: axes whose choices make a grid of runs, what is measured in each, and how the answer is laid out.

A study is one TOML file. Its axes are named choices of settings; every combination of choices, under every seed, is a
run. What differs between a quick look and the papers' sizes stands under ``scales``. See ``experiments/README.md``.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from attnprobe.config import require, require_positive

Settings = dict[str, Any]  # "section.key" -> value, as after -s
Choices = dict[str, "Choice"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One place on an axis: what it changes in the runs that stand there."""

    label: str | None = None  # what tables call it; None: its name
    # the run that the settings change; one axis or the scale has to say it. {axis} is the name of the choice there
    preset: str | None = None
    settings: Settings = dataclasses.field(default_factory=dict)
    pretrain: bool = True  # false: without the phase of this name
    finetune: bool = True
    published: str | None = None  # how published tables call it; None: they have no such place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What holds where several choices meet, beside what each of them says."""

    at: dict[str, str]  # axis -> choice; of the other axes any
    preset: str | None = None  # in the place of the others'
    settings: Settings = dataclasses.field(default_factory=dict)  # after those of all choices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that a probe takes from a checkpoint of every run that has it: the mean over its layers and heads."""

    # trajectory: what is recorded while training, cheap; alignment: of the untrained model, along the change of scores
    # towards ``checkpoint``, see ``work.prices``
    probe: Literal["proximity", "trajectory", "kernels", "alignment"]
    quantity: str  # of the rows that the probe gives, e.g. proximity_bias.max
    checkpoint: Literal["init", "pretrained", "finetuned"] = "finetuned"
    settings: Settings = dataclasses.field(default_factory=dict)  # what the probe is asked with, e.g. n


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A table: a number of the runs, by the choices of the axes of its rows and columns."""

    title: str | None = None
    number: str = "test_accuracy"  # of result.json, or a measure's name
    rows: tuple[str, ...]  # axes
    columns: tuple[str, ...] = ()
    compare: str | None = None  # the axis along which choices are compared
    against: str | None = None  # the choice the others are compared with, seed by seed
    # column of experiments/published.csv -> what stands there; {axis} is what the choice's ``published`` says
    published: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing of a number against an axis of numbers, or of a trajectory against updates."""

    title: str | None = None
    number: str = "test_accuracy"  # as of Layout; with kind="trajectory" a quantity of trajectory.jsonl
    kind: Literal["lines", "bars", "map", "trajectory"] = "lines"
    x: str | None = None  # the axis along the horizontal; None with kind="trajectory": updates
    lines: str | None = None  # the axis with a line (bars: a colour; map: the vertical) for each choice
    panels: str | None = None  # the axis with a panel for each choice
    # draw the gain over this choice of ``lines`` (map: of ``panels``) instead of the number itself
    against: str | None = None
    # map: the measure that predicts where along x something ends: in every row a line at 1 / its median over seeds,
    # measured where x is largest
    boundary: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is made: a quick look, an hour, or the papers' sizes."""

    seeds: int = 3
    preset: str | None = None
    settings: Settings = dataclasses.field(default_factory=dict)  # of every run, before those of the choices
    axes: dict[str, Choices] = dataclasses.field(default_factory=dict)  # merged into the study's own, choice by choice
    only: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # axis -> the choices that are taken
    tune: dict[str, tuple[Any, ...]] | None = None  # in place of the study's own

    def __post_init__(self) -> None:
        require_positive(self, "seeds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A question, the grid of runs that answers it, and how the answer is laid out."""

    title: str
    question: str
    reproduces: str | None = None  # the table or figure of a paper
    axes: dict[str, Choices] = dataclasses.field(default_factory=dict)  # axis -> name -> choice, in order
    skip: tuple[dict[str, str], ...] = ()  # combinations that are left out: axis -> name
    cases: tuple[Case, ...] = ()  # where several choices meet; the later one wins
    settings: Settings = dataclasses.field(default_factory=dict)  # of every run at every scale
    # setting -> values tried in every place of the grid; what is best on validation data, on the average over seeds,
    # is what counts, so that no arm is compared at another one's learning rate
    tune: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    # record proximity and alignment at updates 0, 1 and each time their number grew by this factor
    trajectory_every: float | None = None
    measures: dict[str, Measure] = dataclasses.field(default_factory=dict)
    tables: dict[str, Layout] = dataclasses.field(default_factory=dict)
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    scales: dict[str, Scale]

    def __post_init__(self) -> None:
        require(bool(self.scales), "scales", "is empty", hint="give at least one, like [scales.laptop]")
        require(bool(self.tables or self.figures), "tables", "and figures are both missing: nothing to show")
        grows = self.trajectory_every is None or self.trajectory_every > 1
        require(grows, "trajectory_every", f"must be a factor above 1, got {self.trajectory_every}", hint="2 is usual")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of one run of the grid: the seam between carrying out and counting up."""

    place: dict[str, str]  # axis -> name of the choice
    seed: int
    trial: Settings = dataclasses.field(default_factory=dict)  # the tuned settings, where there are some
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)  # of result.json and measures; empty: not run
    folder: Path | None = None  # of the run
    pretraining: Path | None = None  # folder of the run whose checkpoint it starts from: pretraining is shared by arms
