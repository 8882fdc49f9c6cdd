"""What --probe-every writes while a run trains, and how it is read back."""

import json
from pathlib import Path


def test_trajectory(attnprobe, tiny) -> None:
    arguments = [*tiny, "-s", "pretrain.batch_size=5", "--probe-every", 2, "--probe-sequences", 12]
    assert attnprobe("train", *arguments, "--out", "watched", "-q").code == 0
    assert attnprobe("train", *tiny, "-s", "pretrain.batch_size=5", "--out", "alone", "-q").code == 0
    results = [json.loads(Path(f"{name}/result.json").read_text()) for name in ("watched", "alone")]
    assert results[0]["test_loss"] == results[1]["test_loss"]  # watching changes nothing
    outcome = attnprobe("probe", "trajectory", "watched", "--json", "--csv", "rows.csv", "--figure", "history")
    assert outcome.code == 0
    rows = outcome.document()["rows"]
    assert {(row["phase"], row["step"]) for row in rows} == {
        *(("pretrained", step) for step in (0, 1, 2, 4, 8)), ("finetuned", 0), ("finetuned", 1),
    }  # fmt: skip
    assert Path("history.png").exists()
    shown = attnprobe("probe", "trajectory", "watched").out
    assert "watched" in shown
    assert "layer" in shown
    assert shown.count("pretrained ") >= 5
    outcome = attnprobe("probe", "trajectory", "alone")
    assert outcome.code == 3
    outcome.complains("trajectory.jsonl does not exist", "--probe-every")


def test_trajectory_survives_a_torn_last_line_and_no_other(attnprobe) -> None:
    place = {"run": "r", "seed": 0, "phase": "pretrained", "layer": 0, "head": 0, "direction": None}
    number = {"quantity": "proximity_bias", "estimate": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "n": 3, "unit": ""}
    lines = [json.dumps(place | number | {"step": step, "p_value": 0.5}) + "\n" for step in (0, 1, 2)]
    Path("run").mkdir()
    path = Path("run/trajectory.jsonl")
    path.write_text("".join(lines)[:-40])
    outcome = attnprobe("probe", "trajectory", "run", "--json")
    assert outcome.code == 0
    assert [row["step"] for row in outcome.document()["rows"]] == [0, 1]
    assert outcome.err.count("warning:") == 1
    assert "last line of run/trajectory.jsonl" in outcome.err
    path.write_text(lines[0][:-40] + "\n" + lines[1])
    outcome = attnprobe("probe", "trajectory", "run")
    assert outcome.code == 3
    outcome.complains("line 1 is damaged", "hint:")
    path.write_text(lines[0][:50])
    outcome = attnprobe("probe", "trajectory", "run")
    assert outcome.code == 3
    outcome.complains("is empty")


def test_trajectory_of_runs_that_were_trained_under_one_name(attnprobe) -> None:
    """As by the same command in two folders: two runs, which the name in their records does not tell apart."""
    place = {"run": "run", "seed": 0, "phase": "pretrained", "step": 0, "layer": 0, "head": 0, "direction": None}
    numbers = {"quantity": "proximity_bias", "low": None, "high": None, "p_value": None, "level": 0.95, "n": 8}
    for folder, estimate in (("one", 0.25), ("two", -0.5)):
        Path(folder, "run").mkdir(parents=True)
        line = json.dumps(place | numbers | {"unit": "sd", "estimate": estimate})
        Path(folder, "run", "trajectory.jsonl").write_text(line + "\n")
    rows = attnprobe("probe", "trajectory", "one/run", "two/run", "--json").document()["rows"]
    assert [(row["run"], row["estimate"]) for row in rows] == [("one/run", 0.25), ("two/run", -0.5)]
    shown = attnprobe("probe", "trajectory", "one/run", "two/run").out
    assert "+0.25" in shown
    assert "-0.50" in shown
    attnprobe("probe", "trajectory", "one/run", "one/../one/run").complains("the same run is given twice", "hint:")


def test_runs_of_earlier_versions_called_the_file_telemetry(attnprobe, tiny) -> None:
    """Such a run is read, goes on in its own file when it is resumed, and leaves nothing when it is replaced."""
    arguments = [*tiny, "--probe-every", 2, "--out", "run", "-q"]
    assert attnprobe("train", *arguments).code == 0
    recorded = Path("run/trajectory.jsonl").read_text()
    Path("run/trajectory.jsonl").rename("run/telemetry.jsonl")
    rows = attnprobe("probe", "telemetry", "run", "--json").document()["rows"]
    assert rows == attnprobe("probe", "trajectory", "run", "--json").document()["rows"]
    outcome = attnprobe("probe", "trajectory", "run", "--csv", "run/telemetry.jsonl")
    assert outcome.code == 2
    for file in ("result.json", "checkpoints/finetuned.pt"):  # as if it had been killed before its first save
        Path("run", file).unlink()
    assert attnprobe("train", *arguments, "--resume").code == 0
    assert not Path("run/trajectory.jsonl").exists()
    assert Path("run/telemetry.jsonl").read_text() == recorded
    assert attnprobe("train", *arguments, "--overwrite").code == 0
    assert Path("run/trajectory.jsonl").read_text() == recorded
    assert not Path("run/telemetry.jsonl").exists()
