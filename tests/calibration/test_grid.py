"""The harness: small grids pass, a broken null is caught, and what was measured is never measured again."""

import threading
from pathlib import Path

import numpy as np
import pytest

from attnprobe.calibration import checks, grid
from attnprobe.calibration.checks import control
from attnprobe.calibration.grid import keys, run
from attnprobe.calibration.outcomes import Outcome, p_value
from attnprobe.calibration.records import Key, Records
from attnprobe.calibration.verdicts import EVERY_CELL, Row, judge
from attnprobe.calibration.worlds import N, Replica, chosen_cells
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream

FEW = chosen_cells(["positions=learned", "data=white"])


def rows_of(wanted: list[Key], records: Records) -> list[Row]:
    found = records.chosen(wanted)
    return judge((record.cell, record.probe, outcome) for record in found for outcome in record.outcomes)


def measured(probe: str, replicas: int, *, cells=FEW, power: bool = False) -> list[Row]:
    wanted, records = keys(cells, [probe], replicas, power=power), Records(None, seed=0)
    assert run(wanted, records, seed=0)
    return rows_of(wanted, records)


def test_the_numbers_of_an_exact_test_lie_in_its_interval() -> None:
    """Sign flips of Gaussian numbers: the harness has nothing else to get wrong here than itself."""
    rows = measured("control", 100)
    assert len(rows) == 3 * (len(FEW) + 1)
    for row in rows:
        assert row.verdict == row.outside == "ok"
        assert row.low <= row.nominal <= row.high or row.cell != EVERY_CELL  # one cell in twenty is off by chance


@pytest.mark.parametrize("probe", [name for name in checks.CHECKS if name != "control"])
def test_a_small_grid_of_every_probe(probe: str) -> None:
    """Fifteen replicas see only gross errors; the recorded grid sees the rest."""
    both = FEW, chosen_cells(["positions=none", "data=white"])
    cells = next(filter(None, ([cell for cell in some if grid.asks(cell.name, probe)] for some in both)))
    rows = measured(probe, 5, cells=cells)
    assert {row.cell for row in rows} == {EVERY_CELL, *(cell.name for cell in cells)}
    assert all(row.replicas + row.refused == 5 for row in rows if row.cell != EVERY_CELL)
    assert not [row for row in rows if row.miscalibrated]


def broken_halves(replica: Replica) -> list[Outcome]:
    return [p_value("halved", control.check(replica)[0].value / 2)]


def broken_copies(replica: Replica) -> list[Outcome]:
    """As if every sequence had been seen three times: the error every test of pairs or positions invites."""
    numbers = stream(replica.seed, "copies").standard_normal(N).repeat(3)
    return [p_value("copies", float(sign_flip_p_value(numbers, permutations=199, generator=stream(0, "flips"))))]


def broken_shuffle(replica: Replica) -> list[Outcome]:
    """Smooth profiles ranked among shuffles of themselves: shuffling destroys the smoothness it should keep."""
    draws = stream(replica.seed, "smooth")
    smooth = np.convolve(draws.standard_normal(60), np.ones(12), "valid")
    kernel = np.exp(-np.arange(len(smooth)) / 4)
    null = [abs(smooth @ draws.permutation(kernel)) for _ in range(99)]
    return [p_value("shuffled", (1 + sum(value >= abs(smooth @ kernel) for value in null)) / 100)]


@pytest.mark.parametrize("broken", [broken_halves, broken_copies, broken_shuffle])
def test_a_broken_null_is_called_miscalibrated(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checks.CHECKS, "control", broken)
    rows = measured("control", 600, cells=FEW[:1])
    assert next(row for row in rows if row.cell == EVERY_CELL).verdict == "liberal"


def test_the_reason_of_a_refusal_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(replica: Replica) -> list[Outcome]:
        raise NotApplicableError("padding has no place here")

    monkeypatch.setitem(checks.CHECKS, "control", refuse)
    assert {(row.verdict, row.reason) for row in measured("control", 2)} == {("refused", "padding has no place here")}


def test_planted_shifts_are_found_the_more_the_larger_they_are() -> None:
    rows = [row for row in measured("control", 60, power=True, cells=FEW[:1]) if row.kind == "power"]
    assert [row.cell for row in rows] == ["shift 0.2", "shift 0.4", "shift 0.6"]
    # The power of a t-test of 40 numbers at a level of .05: .235, .693, .962
    for row, expected in zip(rows, (0.235, 0.693, 0.962), strict=True):
        assert row.low <= expected <= row.high


def test_a_stopped_grid_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted, path = keys(FEW, ["control"], 12, power=False), tmp_path / "records.jsonl"
    stop = threading.Event()
    assert not run(wanted, Records(path, seed=0), seed=0, stop=stop, progress=lambda done, total: stop.set())
    begun = Records(path, seed=0)
    assert 0 < len(begun.known) < len(wanted)
    with path.open("a") as file:  # as if a process had been killed while it wrote
        file.write('{"cell": "learned/fu')
    measured_now = []
    records = Records(path, seed=0)
    assert records.known == begun.known
    assert run(wanted, records, seed=0, progress=lambda done, total: measured_now.append(done))
    assert measured_now[0] > len(begun.known)
    whole = Records(None, seed=0)
    run(wanted, whole, seed=0)
    outcomes = [{key: record.outcomes for key, record in r.known.items()} for r in (whole, Records(path, seed=0))]
    assert outcomes[0] == outcomes[1]


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    wanted = keys(FEW, ["control", "proximity"], 2, power=False)
    alone, several = Records(None, seed=0), Records(tmp_path / "records.jsonl", seed=0)
    assert run(wanted, alone, seed=0)
    assert run(wanted, several, seed=0, jobs=2)
    outcomes = [[record.outcomes for record in records.chosen(wanted)] for records in (alone, several)]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["seed", "code"])
def test_records_of_other_settings_are_not_mixed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    Records(path, seed=0)
    if name == "code":
        monkeypatch.setattr("attnprobe.calibration.records.code", lambda: "another")
    with pytest.raises(ConfigError, match=f"other {name}"):
        Records(path, seed=1 if name == "seed" else 0)


def test_replicas_are_measured_a_few_of_every_cell_at_a_time() -> None:
    wanted = keys(FEW, ["control"], 12, power=False)
    assert [number for _, number, _ in wanted[: 3 * grid.TOGETHER]] == [0, 1, 2, 3, 4] * 3
