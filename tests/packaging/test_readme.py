"""The commands of the README run from top to bottom, as a newcomer would type them, on runs made small."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.true_formats import idx_bytes

ROOT = Path(__file__).parents[2]
SMALL = "model.d_model=8 model.heads=2 model.d_mlp=8 pretrain.epochs=1 finetune.epochs=1 task.n_train=40"


def shell_block(heading: str) -> str:
    """The first sh block below a heading of the README."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]


@pytest.mark.parametrize(
    "page", ["README.md", "theory/README.md", "experiments/README.md", "tests/benchmarks/RESULTS.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if not (path.parent / link).exists()]
    if page == "README.md":
        assert len([link for link in links if link.endswith(".py")]) > 25  # a walk through each verb


@pytest.mark.hf
@pytest.mark.slow
def test_commands_of_hugging_face_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.hugging_face.small import tokenizer, write

    write("gpt_neox", tmp_path / "pythia-70m-deduped", vocab_size=1500)
    tokenizer(tmp_path / "pythia-70m-deduped")
    small = "finetune.epochs=1 finetune.batch_size=8 engine.precision=float32"
    data = "task.n_train=20 task.n_validation=10 task.n_test=10 task.min_length=10 task.max_length=64"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "ATTNPROBE_SET": f"{small} {data}"}
    environment["PATH"] = f"{program(tmp_path).parent}:{os.environ['PATH']}"
    script = "set -ex\n" + shell_block("Models of Hugging Face").replace("train listops", "train -q listops")
    finished = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "runs/pythia/checkpoints/finetuned.pt").exists()


def program(folder: Path) -> Path:
    """The console script, of this copy."""
    path = folder / "bin" / "attnprobe"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m attnprobe "$@"\n')
    path.chmod(0o755)
    return path


def write_fashion_mnist(folder: Path) -> None:
    """Files of the published format and size; all images of a class are alike."""
    folder.mkdir(parents=True)
    classes = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    for stem, n in (("train", 60_000), ("t10k", 10_000)):
        labels = np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", classes[labels]), ("labels-idx1", labels)):
            (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array), compresslevel=1))


@pytest.mark.slow
def test_commands_run_in_order(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "data" / "fashion-mnist")
    environment = os.environ | {
        "PATH": f"{program(tmp_path).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ATTNPROBE_SET": SMALL,
        "ATTNPROBE_DATA": str(tmp_path / "data"),
    }
    script = "set -ex\n" + shell_block("What it can do")
    finished = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
