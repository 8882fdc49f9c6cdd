"""Everything a study shows: files, guarded, from what exists; figures are drawn; ten thousand results in seconds."""

import csv
import dataclasses
import json
import time
from pathlib import Path

import pytest

from attnprobe.errors import ConfigError
from attnprobe.report.studies.drawings import between
from attnprobe.report.studies.render import FILES, Answer, boundary, render
from attnprobe.studies.cells import cells
from attnprobe.studies.study import Choice, Figure, Layout, Outcome, Scale, Study
from tests.studies.fixtures import arms_by_tasks, phase_diagram, results


def answer(done: float = 1.0) -> Answer:
    study = arms_by_tasks()
    return Answer(name="arms", scale="laptop", study=study, outcomes=results(study, done=done))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def silent(text: str) -> None:
    pytest.fail(text)


def test_all_files_are_written_and_replaced_by_the_next_render(tmp_path: Path) -> None:
    files = render(answer(done=0.5), tmp_path, warn=silent)
    assert {file.name for file in files} == {*FILES, "bars.png", "bars.pdf", "gains.png", "gains.pdf"}
    half = read(tmp_path / "results.csv")
    render(answer(), tmp_path, warn=silent)
    whole = read(tmp_path / "results.csv")
    assert len(whole) == 3 * 3 * 3 * 5 * 3  # arms, tasks, rates, seeds, numbers
    assert sum(row["number"] == "" for row in half) + sum(row["number"] == "seconds" for row in half) == 3 * 3 * 3 * 5
    counted = read(tmp_path / "cells.csv")
    assert {row["table"] for row in counted} == {"main", "long"}
    assert all(row["n"] == "5" and row["trial"] == "finetune.optimizer.lr=0.01" for row in counted)
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert (said["study"], said["runs found"], said["runs asked for"]) == ("arms", 135, 135)


def test_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    for name in (*FILES, "bars.png"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(ConfigError, match="exists and is no"):
            render(answer(), folder, warn=silent)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"


def test_nothing_at_all_is_rendered_too(tmp_path: Path) -> None:
    study = arms_by_tasks()
    nothing = [dataclasses.replace(o, numbers={}) for o in results(study)]
    render(Answer(name="arms", scale="laptop", study=study, outcomes=nothing), tmp_path, warn=silent)
    page = (tmp_path / "table.md").read_text()
    assert page.count("missing (0 of 5 seeds)") == 18
    assert "0 of 135 runs" in page


def test_maps_lines_and_a_predicted_boundary_are_drawn(tmp_path: Path) -> None:
    study, outcomes = phase_diagram()
    files = render(Answer(name="when", scale="laptop", study=study, outcomes=outcomes), tmp_path, warn=silent)
    assert {file.stem for file in files if file.suffix == ".png"} == {"gain", "accuracy", "level"}
    found = boundary(study, "gain", cells(outcomes, "heard"))
    assert found == {"1.6": float("inf"), "2.2": pytest.approx(6000), "3.0": pytest.approx(900)}


def test_places_between_the_numbers_of_an_axis() -> None:
    import numpy as np

    numbers = np.array([250.0, 1000.0, 4000.0])
    assert [between(x, numbers) for x in (250, 500, 4000, 16000, 62.5)] == pytest.approx([0, 0.5, 2, 3, -1])
    assert between(float("inf"), numbers) == float("inf")


@pytest.mark.slow
def test_ten_thousand_results_are_rendered_in_seconds(tmp_path: Path) -> None:
    """2000 places x 5 seeds; the record has the time on an idle machine."""
    names = [f"c{n}" for n in range(100)]
    axes = {"task": {n: Choice() for n in names[:20]}, "depth": {str(n): Choice() for n in range(25)},
            "arm": {n: Choice() for n in ("scratch", "a", "b", "c")}}  # fmt: skip
    study = Study(
        title="", question="", axes=axes, scales={"laptop": Scale()},
        tables={"t": Layout(rows=("task", "arm"), columns=("depth",), compare="arm", against="scratch")},
        figures={"f": Figure(x="depth", lines="arm", panels="task")},
    )  # fmt: skip
    outcomes = [
        Outcome(place={"task": t, "depth": d, "arm": a}, seed=s,
                numbers={f"{split}_{n}": 0.1 * s + 0.01 * i for split in ("train", "validation", "test")
                         for i, n in enumerate(("accuracy", "loss"))})
        for t in axes["task"] for d in axes["depth"] for a in axes["arm"] for s in range(5)
    ]  # fmt: skip
    assert len(outcomes) == 10_000
    start = time.process_time()
    render(Answer(name="many", scale="laptop", study=study, outcomes=outcomes), tmp_path, warn=silent)
    seconds = time.process_time() - start
    print(f"{seconds:.2f} s")
    assert seconds < 30
