"""Every option of training: stopped and resumed bit for bit, and in an ensemble as alone."""

import json
from pathlib import Path

import pytest
import torch

from attnprobe.errors import NotApplicableError
from attnprobe.training.ensembles.ensemble import check_alike, together
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.run_directory import RunDirectory
from tests.training.equality import assert_equal_runs

CPU = torch.device("cpu")
STEEP = "finetune.optimizer.lr=0.02"
OPTIONS = {
    "dropout": ["model.dropout=0.2", "model.attention_dropout=0.1", "model.embedding_dropout=0.1"],
    "multistep": ["finetune.optimizer={schedule='multistep', milestones=[1, 3], factor=0.5, warmup=3}"],
    "plateau": ["finetune.epochs=9", "finetune.optimizer={schedule='plateau', patience=0, factor=0.5, lr=0.02}"],
    "patience": ["finetune.epochs=40", "finetune.patience=2", STEEP],
    "denoising": ["model.causal=true", "pretrain.objective.name=denoising"],
    "spans": ["pretrain.objective.span=3", "pretrain.objective.ratio=0.4"],
    "published": ["published=true", STEEP],
    "selection": ["finetune.selection=loss", "finetune.ties=later", "pretrain.selection=last"],
}


def lines(directory: Path, phase: str = "finetuned") -> list[dict]:
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["phase"] == phase]


@pytest.mark.parametrize("option", OPTIONS)
def test_stopping_and_resuming_equals_running_through(option: str, small, monitor, tmp_path) -> None:
    """Stopped again and again: inside and between epochs and phases."""
    config = small(*OPTIONS[option])
    execute(config, tmp_path / "through", device=CPU, monitor=monitor)
    for after in (3, 5, 9, 6, 4, 10**6):
        asked = iter(range(after))
        try:
            execute(
                config, tmp_path / "parts", device=CPU, monitor=monitor, resume=True,
                should_stop=lambda asked=asked: next(asked, None) is None,
            )  # fmt: skip
        except Interrupted:
            continue
    assert_equal_runs(tmp_path / "through", tmp_path / "parts")


@pytest.mark.parametrize("option", sorted(OPTIONS.keys() - {"published"}))
def test_a_member_of_an_ensemble_is_its_solo_run(option: str, small, monitor, tmp_path) -> None:
    members = [small("seed=1", *OPTIONS[option]), small("seed=2", "finetune.optimizer.lr=0.004", *OPTIONS[option])]
    check_alike(members)
    runs = [
        Execution(config=config, directory=RunDirectory(tmp_path / f"member{n}"), device=CPU, monitor=monitor)
        for n, config in enumerate(members)
    ]
    together([updates(run) for run in runs])
    for number, config in enumerate(members):
        execute(config, tmp_path / f"alone{number}", device=CPU, monitor=monitor)
        for phase in ("pretrained", "finetuned"):
            got, wanted = (lines(tmp_path / f"{kind}{number}", phase) for kind in ("member", "alone"))
            assert len(got) == len(wanted)
            for a, b in zip(got, wanted, strict=True):
                assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
                assert a["lr"] == pytest.approx(b["lr"])


def test_an_ensemble_whose_members_would_see_each_others_padding_is_refused(small) -> None:
    with pytest.raises(NotApplicableError, match="each other's padding"):
        check_alike([small("published=true"), small("published=true", "seed=1")])


def test_options_do_what_they_say(small, monitor, tmp_path) -> None:
    """Rates of the recorded epochs, the epoch at which patience ends, and the epochs that are kept."""
    for option in ("multistep", "plateau", "patience", "selection"):
        execute(small(*OPTIONS[option]), tmp_path / option, device=CPU, monitor=monitor)
    rates = [record["lr"] for record in lines(tmp_path / "multistep")]
    assert rates == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4])
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    fall = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, mode="max", factor=0.5, patience=0)
    for record in lines(tmp_path / "plateau"):
        assert record["lr"] == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        fall.step(record["validation_accuracy"])
    assert sgd.param_groups[0]["lr"] < 0.02, "the test has seen a plateau"
    accuracies = [record["validation_accuracy"] for record in lines(tmp_path / "patience")]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 1 + 2 < 40
    kept = torch.load(tmp_path / "selection" / "checkpoints" / "pretrained.pt", weights_only=True)
    assert kept["epoch"] == 3  # the last
    losses = [record["validation_loss"] for record in lines(tmp_path / "selection")]
    kept = torch.load(tmp_path / "selection" / "checkpoints" / "finetuned.pt", weights_only=True)
    assert kept["epoch"] == losses.index(min(losses)) + 1
