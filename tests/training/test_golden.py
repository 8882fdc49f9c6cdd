"""Ten small runs whose losses are pinned, the same on one and on two threads; and an ensemble beside its solo runs.

The numbers were made by ``python -m tests.training.golden`` (torch 2.13 on a CPU). Between one and two threads
eight of the runs differed by 2e-7 at most; the batch norms, whose sums over a batch are cut among the threads, by 2e-4;
Pathfinder was not measured on two.
"""

import json
from pathlib import Path

import pytest
import torch

from attnprobe.training.ensembles.ensemble import together
from attnprobe.training.ensembles.group_saves import GroupSaves
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution
from attnprobe.training.saved.run_directory import RunDirectory
from tests.training.equality import states
from tests.training.golden import RUNS, trained

TOLERANCE = 1e-3  # of a loss: other processors and versions of torch round otherwise
GOLDEN = {  # losses of training, validation and test
    "textures": (1.804635, 1.801797, 1.810148),
    "textures, next input": (1.812069, 1.817089, 1.849596),
    "textures, denoising": (1.792295, 1.80934, 1.808169),
    "textures, batch norm and dropout": (1.790681, 1.801686, 1.829687),
    "listops": (2.256486, 2.35084, 2.260483),
    "listops, windows": (2.262398, 2.329769, 2.268101),
    "listops, S4D": (2.183058, 2.245631, 2.26371),
    "listops, DLR": (2.205253, 2.322308, 2.280716),
    "listops, linear": (2.265958, 2.366738, 2.319905),
    "pathfinder": (0.6899539, 0.6865487, 0.6935493),
}
THREADS = ("textures, batch norm and dropout",)  # those that differ most


def test_every_run_has_its_numbers() -> None:
    assert GOLDEN.keys() == RUNS.keys()


@pytest.mark.parametrize("name", RUNS)
def test_golden(name: str) -> None:
    assert trained(name) == pytest.approx(GOLDEN[name], rel=TOLERANCE)


@pytest.mark.parametrize("name", THREADS)
def test_golden_on_two_threads(name: str) -> None:
    torch.set_num_threads(2)
    assert trained(name) == pytest.approx(GOLDEN[name], rel=TOLERANCE)


def test_what_equal_to_its_solo_run_means(small, monitor, tmp_path: Path) -> None:
    """Of the members of an ensemble, after 28 updates of both phases: initial weights are the same bits, losses agree
    to 1e-5 of themselves (2e-7 measured), single weights to 0.005 (0.0009 measured): where a gradient is next to
    nothing, AdamW divides one rounding error by another.
    """
    alone = [tmp_path / f"alone{seed}" for seed in (1, 2)]
    for seed, folder in zip((1, 2), alone, strict=True):
        execute(small(f"seed={seed}"), folder, device=torch.device("cpu"), monitor=monitor)
    members = [
        Execution(
            config=small(f"seed={seed}"), directory=RunDirectory(tmp_path / f"s{seed}"), device=torch.device("cpu"),
            monitor=monitor,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    together([updates(member) for member in members], GroupSaves(members))
    for member, folder in zip(members, alone, strict=True):
        a, b = states(member.directory.path), states(folder)
        assert all(torch.equal(a["init"][key], b["init"][key]) for key in b["init"])
        apart = {stage: max(float((a[stage][k] - b[stage][k]).abs().max()) for k in b[stage]) for stage in b}
        losses = [
            json.loads((path / "result.json").read_text())["test_loss"] for path in (member.directory.path, folder)
        ]
        assert max(apart.values()) < 5e-3
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert json.loads((member.directory.path / "manifest.json").read_text())["together"] is True
