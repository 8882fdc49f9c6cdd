"""What the README says of other models runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capture.hugging_face_folders import write_images, write_model, write_table, write_text

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## On other models\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    from attnprobe.models.hugging_face.loading import library

    library()
    for name, kind in (("bert", "bert"), ("vit", "vit"), ("pythia-70m", "gpt_neox")):
        write_model(kind, tmp_path / "models" / name)
    for step in (100, 200):
        write_model("bert", tmp_path / "models" / "out" / f"checkpoint-{step}", seed=step)
    write_images(tmp_path / "photos")
    table = write_table(tmp_path / "reviews.csv", 80).read_text()
    (tmp_path / "reviews.csv").write_text(table.replace("text,answer", "text,stars"))
    words = write_text(tmp_path / "book.txt", 4000).read_text().split()
    lines = [" ".join(words[i : i + 25]) for i in range(0, len(words), 25)]
    (tmp_path / "book.txt").write_text("\n".join(lines))
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    program = place / "bin" / "attnprobe"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m attnprobe "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_a_torch_module_needs_nothing_of_hugging_face(tmp_path: Path) -> None:
    script = blocks("python")[0]
    assert "torch.nn.TransformerEncoder(" in script
    command = [sys.executable, "-c", f"{script}\nimport sys; assert 'transformers' not in sys.modules"]
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "2 calls seen by functions" in finished.stdout


@pytest.mark.hf
@pytest.mark.slow
@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_examples_run(language: str, place: Path) -> None:
    command = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
    script = "\n".join(blocks(language))
    assert script.count("\n") > 4
    if language == "sh":
        script = script.replace("-n 200", "-n 40 --max-length 20").replace("-n 50", "-n 20 --max-length 20")
    finished = subprocess.run([*command, script], cwd=place, env=environment(place), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "calls seen by" in finished.stderr + finished.stdout
