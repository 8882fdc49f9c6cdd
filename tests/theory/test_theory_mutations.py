"""Every formula is load-bearing: altered in any small way, at least one row of the verification fails."""

import dataclasses
import inspect
import os
from pathlib import Path

import numpy as np
import pytest

from theory import mutants, predictions
from theory.checks import CLAIMS
from theory.setting import Setting

SETTING = Setting(length=9, dim=3, seed=1, draws=6000)
NAMES = sorted(mutants.functions())
EVERY = 1 if os.environ.get("ATTNPROBE_TEST_MUTANTS") == "all" else 8  # all of them take about a minute
ALL = {mutant.name: mutant for name in NAMES for mutant in mutants.mutants(mutants.functions()[name])}
CHOSEN = [name for name in ALL if name not in mutants.EQUIVALENT][::EVERY]

# What an independent reader altered and no row noticed, as replacements in the source.
ONCE_ALIVE = [
    ("departure_rate", "gradient - gradient.mean(0)", "gradient"),
    ("departure_rate", "gradient - gradient.mean(0)", "gradient + 0 * gradient.mean(0)"),
    ("proximity_derivative", " + (seen - both) * autocorrelation[0]", ""),
    ("proximity_derivative", "seen + both * gain / length", "seen + seen * gain / length"),
    ("relu_statistic", "autocorrelation[:, None] * cross + mean_power * square", "autocorrelation[:, None] * cross"),
    ("relu_statistic", "2 * cross + square", "cross + square"),
    ("statistic_moments", "(centred + centred.T) / 2", "centred"),
    ("price_ratio", "(v + h**2)", "v"),
    ("price_ratio", "(v + m**2)", "v"),
    ("shuffled_score", "(v + h**2)", "v"),
    ("shuffled_score", "(v + h**2)", "(v + h**2 + (first[0] + second[0]) ** 2 / 4)"),
]


@pytest.fixture(scope="module")
def users() -> dict[str, list[mutants.Part]]:
    return mutants.users(mutants.SETTING)


def test_every_prediction_has_a_row(users):
    assert len(predictions.__all__) >= 40
    assert [name for name in NAMES if not users[name]] == []


@pytest.mark.parametrize("name", predictions.__all__)
def test_the_readme_states_every_prediction(name):
    assert f"`{name}`" in (Path(predictions.__file__).parents[1] / "README.md").read_text()


def test_mutants_are_many_and_of_every_kind():
    kinds = {ALL[name].kind for name in CHOSEN}
    assert kinds >= {"sign", "factor", "exponent", "dropped term", "swapped symbol", "constant"}
    assert len(CHOSEN) >= 60
    assert {ALL[name].function for name in ALL} == set(NAMES)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutants_are_killed(users):
    """By a row that fails; an error that stops the rows counts as well, but most must be rows."""
    killers = {name: mutants.killer(ALL[name], users[ALL[name].function]) for name in CHOSEN}
    assert [name for name, killer in killers.items() if killer is None] == []
    by_rows = [killer for killer in killers.values() if killer is not None and not killer.startswith("error")]
    assert len(by_rows) >= max(60, 0.7 * len(CHOSEN))


@pytest.mark.parametrize("name", mutants.EQUIVALENT)
def test_what_is_listed_as_equivalent_is_a_mutant_that_no_row_tells(name, users):
    assert mutants.killer(ALL[name], users[ALL[name].function][:2]) is None


@pytest.mark.parametrize(("function", "before", "after"), ONCE_ALIVE)
def test_what_was_once_alive_is_killed(function, before, after, users):
    source = inspect.getsource(getattr(predictions, function))
    assert source.count(before) >= 1
    mutant = mutants.Mutant(function=function, kind="", name="", source=after.join(source.rsplit(before, 1)))
    assert not str(mutants.killer(mutant, users[function])).startswith(("None", "error"))


def test_an_unaltered_function_is_not_killed(users):
    for name in ("departure_rate", "price_ratio", "code_weights"):
        source = inspect.getsource(mutants.functions()[name])
        same = dataclasses.replace(ALL[CHOSEN[0]], function=name, source=source)
        assert mutants.killer(same, users[name]) is None
        assert getattr(predictions, name) is mutants.functions()[name]


def test_the_command_prints_a_line_per_mutant(capsys):
    assert mutants.main(["--only", "visible_fraction"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + sum(mutant.function == "visible_fraction" for mutant in ALL.values())
    assert lines[-1].endswith("alive: 0")
    assert all("C1: visible fraction" in line for line in lines[:-1])


def test_the_command_fails_for_a_mutant_that_is_alive(monkeypatch, capsys):
    monkeypatch.setattr(mutants, "PARTS", mutants.PARTS[:1])
    monkeypatch.setattr(mutants, "EQUIVALENT", {})
    assert mutants.main(["--only", "visible_fraction", "--alive"]) == 1
    assert "alive " in capsys.readouterr().out


def test_a_nonzero_prediction_is_never_copied_from_the_measurement():
    """Rounding differs where code differs: most real-valued agreements must not be bit for bit."""
    rows = [row for claim in CLAIMS for row in claim.rows(SETTING)]
    real = [row for row in rows if not row.control and row.predicted != round(row.predicted)]
    assert np.mean([row.error == 0 for row in real]) < 0.2
