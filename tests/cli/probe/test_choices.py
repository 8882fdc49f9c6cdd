"""Choices of the command line are those of the probes, and what is not used is not refused."""

from enum import StrEnum
from typing import get_args

import pytest

from attnprobe.cli.probe import alignment, proximity
from attnprobe.probes.alignment.rows import Null
from attnprobe.probes.blindness import default_claims
from attnprobe.probes.proximity.nulls import NullName
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.scores.named import MAIN_DIRECTIONS, Along, named_directions


@pytest.mark.parametrize(
    ("names", "choices"),
    [(proximity.NullName, NullName), (alignment.NullName, Null), (alignment.AlongName, Along)],
    ids=["proximity --null", "alignment --null", "alignment --along"],
)
def test_the_command_offers_what_the_probe_takes(names: type[StrEnum], choices) -> None:
    assert [name.value for name in names] == list(get_args(choices))


def test_the_directions_that_tables_and_verdicts_speak_of_are_measured_by_default() -> None:
    space = ScoreSpace(layout=Layout(shape=(5, 5)))
    for along, name in zip(get_args(Along), MAIN_DIRECTIONS, strict=True):
        assert name in {direction.name for direction in named_directions(space, along=along)}
    assert MAIN_DIRECTIONS[0] in {claim.direction.name for claim in default_claims(space, 0)}


def test_draws_without_a_null_are_not_counted(attnprobe, checkpoints) -> None:
    outcome = attnprobe("probe", "proximity", checkpoints[0], "-n", 20, "--null", "none", "--draws", 5, "--json")
    assert outcome.code == 0
    assert {row["p_value"] for row in outcome.document()["rows"]} == {None}
    outcome = attnprobe("probe", "proximity", checkpoints[0], "-n", 20, "--draws", 5)
    assert outcome.code == 2
    outcome.complains("draws must be at least 19 for a p-value of 0.05, got 5", "draw more of them")
