"""attnprobe calibrate: its document, its files, its exit codes."""

import csv
import signal
from pathlib import Path

import pytest

SMALL = ("calibrate", "--replicas", 3, "--jobs", 1, "--cells", "positions=none", "--cells", "data=white")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.calibration import checks
    from attnprobe.calibration.outcomes import p_value

    monkeypatch.setitem(checks.CHECKS, "control", lambda replica: [p_value("always", 0.001)])


def test_a_small_calibration_writes_everything(attnprobe) -> None:
    files = ("--out", "page.md", "--csv", "rates.csv", "--figure", "rates.png", "--records", "kept.jsonl")
    outcome = attnprobe(*SMALL, "--probe", "control", *files, "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert document["passed"] is True
    assert document["figures"] == ["rates.png"]
    assert document["settings"]["sequences"] == 40
    cells = {row["cell"] for row in document["rows"] if row["kind"] != "power"}
    assert cells == {f"none/{seen}/white" for seen in ("full", "padded", "causal", "windows")} | {"all cells"}
    planted = [row["cell"] for row in document["rows"] if row["kind"] == "power"]
    assert planted == ["shift 0.2", "shift 0.4", "shift 0.6"]
    page = Path("page.md").read_text()
    assert page.startswith("`attnprobe calibrate`, 20")
    assert "| control | mean, Gaussian: covers | .950 |" in page
    with Path("rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == [row["rate"] for row in document["rows"]]
    # Again: nothing is measured anew, and every file may be replaced, because it is ours.
    kept = Path("kept.jsonl").read_bytes()
    again = attnprobe(*SMALL, "--probe", "control", *files)
    assert again.code == 0
    assert "21 of 21 answers are in kept.jsonl already" in again.err
    assert Path("kept.jsonl").read_bytes() == kept
    assert "planted effects" in again.out


def test_a_broken_promise_is_exit_code_5(attnprobe, broken) -> None:
    outcome = attnprobe(*SMALL, "--probe", "control", "--no-power", "--full")
    assert outcome.code == 5
    assert "Miscalibrated (liberal): control always" in " ".join(outcome.out.split())


def test_the_table_fits_80_columns(attnprobe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = attnprobe(*SMALL, "--probe", "control")
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cells", "positions=fourier"), ("no positions ['fourier']", "sinusoidal")),
        (("--cells", "colour=red"), ("no axis 'colour'",)),
        (("--probe", "nothing"), ("probe 'nothing'", "proximity")),
        (("--probe", "trajectory", "--cells", "visibility=causal"), ("nothing is asked of these probes", "--cells")),
        (("--records", "foreign.txt"), ("foreign.txt exists and is no calibration file",)),
        (("--out", "foreign.txt"), ("foreign.txt exists and is no calibration file",)),
        (("--csv", "foreign.txt"), ("foreign.txt exists and is no calibration file",)),
    ],
)
def test_mistakes_are_one_line(attnprobe, arguments, words) -> None:
    Path("foreign.txt").write_text("somebody's own")
    outcome = attnprobe(*SMALL, *arguments)
    assert outcome.code == 2
    outcome.complains(*words)
    assert Path("foreign.txt").read_text() == "somebody's own"


def test_records_of_another_seed_are_refused(attnprobe) -> None:
    assert attnprobe(*SMALL, "--probe", "control", "--no-power", "-q").code == 0
    outcome = attnprobe(*SMALL, "--probe", "control", "--seed", 1)
    assert outcome.code == 2
    outcome.complains("calibration.jsonl was begun with other seed", "--records")


def test_what_was_finished_is_shown_when_it_is_stopped(attnprobe, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.calibration import checks, grid
    from attnprobe.calibration.checks import control

    calls = []

    def interrupted(replica):
        calls.append(replica)
        if len(calls) == 4:  # in the second group of replicas
            signal.raise_signal(signal.SIGINT)
        return control.check(replica)

    monkeypatch.setattr(grid, "TOGETHER", 3)
    monkeypatch.setitem(checks.CHECKS, "control", interrupted)
    outcome = attnprobe(*SMALL, "--probe", "control", "--no-power", "--out", "page.md")
    assert outcome.code == 130
    assert len(calls) == 6
    assert "none/padded/white" in Path("page.md").read_text()
    assert "none/causal/white" not in Path("page.md").read_text()
    again = attnprobe(*SMALL, "--probe", "control", "--no-power")
    assert again.code == 0
    assert len(calls) == 12


def test_every_commit_that_measured_is_named(attnprobe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprobe.calibration.records.git_commit", lambda: "abc")
    assert attnprobe(*SMALL[:2], 1, *SMALL[3:], "--probe", "control", "--no-power", "-q").code == 0
    monkeypatch.setattr("attnprobe.calibration.records.git_commit", lambda: "def+")
    files = ("--probe", "control", "--no-power", "--out", "page.md")
    assert attnprobe(*SMALL, *files).code == 0
    page = Path("page.md").read_text()
    assert ", at commits abc and def with changes that were not committed, code " in page.splitlines()[0]
    # What the second one measured is not asked for here.
    document = attnprobe(*SMALL[:2], 1, *SMALL[3:], *files, "--json").document()
    assert document["commits"] == ["abc"]
    assert ", at commit abc, code " in Path("page.md").read_text().splitlines()[0]


def test_two_at_once_do_not_write_into_one_file(attnprobe) -> None:
    from attnprobe.files.ownership import one_writer_of

    with one_writer_of(Path("kept.jsonl")):
        outcome = attnprobe(*SMALL, "--probe", "control", "--records", "kept.jsonl")
    assert outcome.code == 2
    outcome.complains("a process is writing to kept.jsonl")
    assert not Path("kept.jsonl").exists()
    assert attnprobe(*SMALL, "--probe", "control", "--no-power", "--records", "kept.jsonl").code == 0
