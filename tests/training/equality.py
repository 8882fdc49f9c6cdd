"""Whether two run directories hold the same run, bit for bit."""

import json
from pathlib import Path
from typing import Any

import torch

from attnprobe.training.saved.checkpoint import load_checkpoint

OWN = ("seconds", "time", "run")  # of a record: what every run has for itself


def states(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of every checkpoint, by its name."""
    return {path.stem: load_checkpoint(path).state for path in (run / "checkpoints").glob("*.pt")}


def records(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """What a run wrote down, line by line; nothing if there is no such file."""
    path = run / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: value for key, value in json.loads(line).items() if key not in OWN} for line in lines]


def assert_equal_runs(one: Path, two: Path) -> None:
    a, b = states(one), states(two)
    assert a.keys() == b.keys()
    assert len(a) > 1, "there is something to compare"
    for name, state in a.items():
        assert state.keys() == b[name].keys()
        for key, tensor in state.items():
            assert torch.equal(tensor, b[name][key]), (name, key)
    assert records(one), "there is something to compare"
    for name in ("metrics.jsonl", "trajectory.jsonl"):
        assert records(one, name) == records(two, name), name
