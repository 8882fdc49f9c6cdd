"""Records of very long runs are read line by line: memory is that of what is kept, not of the file."""

import json
import tracemalloc
from pathlib import Path

import pytest

from attnprobe.files import json_lines
from attnprobe.launch.trajectory import read_run
from attnprobe.report.training_figures import read_curve

EPOCHS = 20_000


def metrics(folder: Path) -> Path:
    path = folder / "metrics.jsonl"
    line = {"phase": "finetuned", "epoch": 1, "test_accuracy": 0.5, "train_loss": 1.0, "note": "x" * 400}
    with path.open("w") as file:
        file.writelines(json.dumps(line | {"epoch": n + 1}) + "\n" for n in range(EPOCHS))
    return path


def peak(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_curve_takes_the_memory_of_its_values(tmp_path) -> None:
    path = metrics(tmp_path)
    assert path.stat().st_size > 9 * 2**20
    assert peak(lambda: read_curve(tmp_path, "test_accuracy")) < 2 * 2**20
    assert len(read_curve(tmp_path, "test_accuracy")) == EPOCHS


def test_a_trajectory_takes_the_memory_of_its_latest_records(tmp_path) -> None:
    """Each row was written ten times, as if the run had been interrupted so often."""
    row = {
        "run": "r", "seed": 0, "phase": "pretrained", "layer": 0, "head": 0, "quantity": "proximity_bias",
        "direction": None, "estimate": 0.5, "p_value": None, "low": 0.0, "high": 1.0,
    }  # fmt: skip
    path = tmp_path / "trajectory.jsonl"
    with path.open("w") as file:
        for _ in range(10):
            file.writelines(json.dumps(row | {"step": n}) + "\n" for n in range(2000))
    told: list[str] = []
    assert peak(lambda: read_run(tmp_path, warn=told.append)) < min(2**22, path.stat().st_size)
    assert len(read_run(tmp_path, warn=told.append)) == 2000
    assert told == []


def test_lines_that_are_no_table_are_told(tmp_path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n[2]\n')
    found = json_lines(path)
    assert next(found) == {"a": 1}
    with pytest.raises(ValueError, match="instead of a table"):
        next(found)
