"""Every published model has as many parameters here as in its own code.

parameter_counts.csv holds what the modules of the published code count (``sum(p.numel() for p in m.parameters())``),
run with the settings of its files: blocks and last norm, without what depends on the data (embeddings, heads, and
MEGA's numbers for every offset). printed_counts.csv holds every number that the papers themselves print (Coser et al.
2026 print none), and why no preset has some of them.
"""

import csv
import math
from pathlib import Path

import pytest

from attnprobe import presets, run
from attnprobe.models import make_model
from attnprobe.tasks import Spec
from tests.tasks.presets.table import read_values

with Path(__file__).with_name("parameter_counts.csv").open(newline="", encoding="utf-8") as file:
    COUNTS = {row["preset"]: int(row["parameters"]) for row in csv.DictReader(file)}

with Path(__file__).with_name("printed_counts.csv").open(newline="", encoding="utf-8") as file:
    PRINTED = list(csv.DictReader(file))


def not_counted() -> set[str]:
    """The code of Tay et al. is of another framework, without biases in attention; Pythia: see test_pythia."""
    found = {value.preset for value in read_values()}
    benchmark = {value.preset for value in read_values() if value.source.startswith("LRA:")}
    return benchmark | {preset for preset in found if "backbone" in presets.read_table(preset)["model"]}


@pytest.mark.parametrize("preset", COUNTS)
def test_it_has_as_many_parameters_as_published(preset: str) -> None:
    config = run.from_table(presets.read_table(preset)).model
    model = make_model(config, Spec(length=2, classes=2), "values", seed=0)
    own = [p.numel() for name, p in model.named_parameters() if name.startswith(("blocks.", "norm."))]
    tables = [p.numel() for name, p in model.named_parameters() if name.endswith(".bias.table")]
    assert sum(own) - sum(tables) == COUNTS[preset]


def test_every_published_preset_is_counted() -> None:
    assert {value.preset for value in read_values()} - not_counted() == COUNTS.keys()


@pytest.mark.parametrize("row", PRINTED, ids=lambda row: f"{row['model']} {row['printed']}")
def test_printed_numbers_are_met_or_say_why_not(row: dict[str, str]) -> None:
    """To the one digit that is printed: no other number of the table is nearer to what the preset has."""
    assert bool(row["preset"]) != bool(row["why not"])
    if row["preset"]:
        table = [int(r["printed"]) for r in PRINTED if (r["where"], r["model"]) == (row["where"], row["model"])]
        nearest = min(table, key=lambda number: abs(math.log(COUNTS[row["preset"]] / number)))
        assert nearest == int(row["printed"])


@pytest.mark.parametrize("task", ["text", "listops"])
def test_state_space_models_are_smaller_where_the_paper_says_so(task: str) -> None:
    """Amos et al. 2023, appendix C.1.2."""
    assert COUNTS[f"{task}-s4"] < COUNTS[task]
