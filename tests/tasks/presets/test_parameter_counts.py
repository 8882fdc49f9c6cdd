"""Every published model has as many parameters here as in its own code.

parameter_counts.csv holds what the modules of the published code count (``sum(p.numel() for p in m.parameters())``),
run with the settings of its files: blocks and last norm, without what depends on the data (embeddings, heads, and
MEGA's numbers for every offset). The papers themselves give one number only, 3M in Table 9 of Amos et al. 2023.
"""

import csv
from pathlib import Path

import pytest

from attnprobe import presets, run
from attnprobe.models import make_model
from attnprobe.tasks import Spec
from tests.tasks.presets.table import read_values

with Path(__file__).with_name("parameter_counts.csv").open(newline="", encoding="utf-8") as file:
    COUNTS = {row["preset"]: int(row["parameters"]) for row in csv.DictReader(file)}


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


def test_the_number_that_is_printed() -> None:
    assert round(COUNTS["image-rotary"] / 1e6) == 3
