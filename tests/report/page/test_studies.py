"""A rendered study on the page: its cells as they stand in its files."""

import json
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError
from attnprobe.report.page.material import read_studies
from attnprobe.report.studies.render import OPENING
from attnprobe.report.studies.rows import cells
from tests.report.page.outline import read_page


def write_study(folder: Path) -> Path:
    known = {
        "table": "transfer",
        "number": "test_accuracy",
        "seeds": 5,
        "n": 5,
        "estimate": 0.625,
        "low": 0.5,
        "high": 0.75,
    }
    known |= {"published": 0.5, "gain": 0.125, "simultaneous_low": -0.05, "simultaneous_high": 0.3, "remarks": "<b>"}
    missing = {"table": "transfer", "number": "test_accuracy", "seeds": 5, "n": 0, "remarks": "missing"}
    records = [known | {"place": {"arm": "qk"}}, missing | {"place": {"arm": "all"}}]
    folder.mkdir()
    (folder / "cells.csv").write_text(cells(records, ["arm"]))
    said = {"made by": OPENING, "study": "qk", "scale": "smoke", "date": "2026-01-02", "commit": "abc"}
    (folder / "manifest.json").write_text(json.dumps(said | {"runs asked for": 10, "runs found": 5}))
    return folder


def test_a_study_alone_makes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.cli import main

    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "qk-smoke")
    with pytest.raises(SystemExit) as stop:
        main(["report", "qk-smoke", "--no-theory", "-q"])
    assert not stop.value.code
    page = read_page(Path("report.html").read_text(encoding="utf-8"))
    assert [n.text for n in page.all("h2")] == ["Studies", "Manifest"]
    assert [n.text for n in page.all("h3")] == ["qk at scale smoke"]
    table = page.all("table")[0]
    lines = [[cell.text for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tr")]
    assert lines[1:] == [
        ["qk", "0.625", "[0.500, 0.750]", "5", "0.500", "+0.125", "[-0.050, +0.300]", "<b>"],
        ["all", "", "", "0", "", "", "", "missing"],
    ]
    assert len([n for n in page.all("circle") if "estimate" in n.classes]) == 1
    assert "Study qk, smoke: 5 of 10 runs." in page.text


def test_folders_that_are_no_study(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    assert list(read_studies([study, tmp_path])) == [study]
    (study / "cells.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match="its heading is that of another file"):
        read_studies([study])
    (study / "manifest.json").write_text(json.dumps({"made by": "somebody"}))
    assert read_studies([study]) == {}
