"""The notebooks: their cells run in a fresh process, and print the numbers that are saved in them."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def outputs(notebook: Path) -> list[dict]:
    return [output for cell in cells(notebook) for output in cell["outputs"]]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", text)]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_print_what_is_saved(notebook: Path, tmp_path: Path) -> None:
    script = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", script]
    finished = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert not list(tmp_path.iterdir())
    saved = "".join("".join(output["text"]) for output in outputs(notebook) if output["output_type"] == "stream")
    main = [line for line in saved.splitlines() if "bias" in line]
    found = [line for line in finished.stdout.splitlines() if "bias" in line]
    assert len(main) > 1
    for one, other in zip(main, found, strict=True):
        assert numbers(other) == pytest.approx(numbers(one), abs=0.05)  # other processors round otherwise


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_verdict_and_a_figure_are_saved_in_it(notebook: Path) -> None:
    shown = [output["data"] for output in outputs(notebook) if "data" in output]
    assert any("prefers near keys most" in "".join(data["text/plain"]) for data in shown)
    pictures = [base64.b64decode("".join(data["image/png"])) for data in shown if "image/png" in data]
    assert pictures
    assert all(png.startswith(b"\x89PNG") for png in pictures)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
