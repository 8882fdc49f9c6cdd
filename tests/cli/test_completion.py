"""Completion as bash asks for it: a process of its own, the words of the command line in its environment."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from attnprobe.presets import descriptions

ROOT = Path(__file__).parents[2]
CODE = (
    "import sys\nsys.argv[0] = 'attnprobe'\nfrom attnprobe.cli import main\n"
    "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
)


def complete(line: str, folder: Path = ROOT) -> list[str]:
    """What is offered at the end of ``line``; like bash, = becomes a word of its own."""
    words = line.replace("=", " = ").split(" ")
    words = [w for number, w in enumerate(words) if w or number == len(words) - 1]
    environment = os.environ | {
        "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "PYTHONPATH": str(ROOT),
        "_ATTNPROBE_COMPLETE": "complete_bash",
    }  # fmt: skip
    command = [sys.executable, "-c", CODE]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    return finished.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("attnprobe train pathx", sorted(name for name in descriptions() if name.startswith("pathx"))),
        ("attnprobe presets text-s", ["text-s4", "text-s4-random", "text-small"]),
        (
            "attnprobe train -s finetune.optimizer.w",
            [f"finetune.optimizer.{name}" for name in ("warmup", "warmup_start", "weight_decay")],
        ),
        ("attnprobe train -s model.pos", [f"model.positions={p}" for p in ("none", "learned", "sinusoidal", "rotary")]),
        ("attnprobe train -s model.positions=", ["none", "learned", "sinusoidal", "rotary"]),
        ("attnprobe train -s seed=3 -s finetune.optimizer.schedule=co", ["constant", "cosine"]),
        ("attnprobe train -s model.causal=", ["true", "false"]),
        ("attnprobe train -s pretrain.optimizer.lr", ["pretrain.optimizer.lr=0.01"]),  # what the preset says
        ("attnprobe train listops -s task.max_d", ["task.max_depth=10"]),
        ("attnprobe train fashion-mnist -s task.max_d", []),
        ("attnprobe train listops -s finetune.task.max_d", ["finetune.task.max_depth=10"]),
        ("attnprobe train fashion-mnist -s finetune.task.max_d", []),
        ("attnprobe train -s task.name=pathf", ["pathfinder"]),
        ("attnprobe data describe pa", ["pathfinder"]),
        ("attnprobe data describe pathfinder -s sid", ["side=32", "side=64", "side=128", "side=256"]),
        ("attnprobe data describe textures -s side=", ["10"]),
        ("attnprobe data fetch im", ["image", "imdb"]),
        ("attnprobe settings engine.pre", ["engine.precision"]),
        ("attnprobe bench --suite q", ["quick"]),
        ("attnprobe probe proximity run", []),  # nothing of ours: bash then completes files, as Typer's script asks it
    ],
)
def test_completion(line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_a_file_in_place_of_a_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[task]\nname = "listops"\n[model]\nd_model = 24\n')
    assert complete("attnprobe train mine.toml -s model.d_mo", tmp_path) == ["model.d_model=24"]
    assert complete("attnprobe train missing.toml -s model.d_mo", tmp_path) == ["model.d_model=64"]
    assert complete("attnprobe train mi", tmp_path) == []


def test_completion_answers_at_once() -> None:
    """Processor time, the best of three."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        complete("attnprobe train -s finetune.optimizer.")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.8  # half of it is starting Python and Typer
