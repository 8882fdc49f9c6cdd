"""Runs that are trained as one ensemble are the runs they would be alone."""

import json
from pathlib import Path

import pytest
import torch

from attnprobe.errors import NotApplicableError, RunError
from attnprobe.training import execute as execution
from attnprobe.training.ensembles.ensemble import check_alike, together
from attnprobe.training.ensembles.group_saves import GroupSaves
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution, Moment
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.run_directory import RunDirectory
from tests.training.equality import assert_equal_runs

CPU = torch.device("cpu")
MEMBERS = (  # each with a seed, data, rate, decay and mask ratio of its own; the last one with fewer samples, so steps
    ("seed=1",),
    ("seed=2", "pretrain.objective.ratio=0.3", "finetune.optimizer.lr=0.004"),
    ("seed=3", "task.n_train=41", "pretrain.optimizer.weight_decay=0.1"),
)


@pytest.fixture
def executions(small, monitor, tmp_path):
    def make(name: str, should_stop=lambda: False, changes=MEMBERS, watch=None, resume=False) -> list[Execution]:
        return [
            Execution(
                config=small(*change), directory=RunDirectory(tmp_path / name / str(n)), device=CPU, monitor=monitor,
                should_stop=should_stop, watch=watch, resume=resume,
            )
            for n, change in enumerate(changes)
        ]  # fmt: skip

    return make


def train(executions: list[Execution]) -> list[dict]:
    return together([updates(e) for e in executions], GroupSaves(executions))


def assert_same(a: dict, b: dict, rel: float) -> None:
    for key in ("train_loss", "validation_loss", "test_loss"):
        assert a[key] == pytest.approx(b[key], rel=rel), key
    lines = [RunDirectory(Path(result["run_dir"])).metrics.read_text().splitlines() for result in (a, b)]
    for x, y in zip(*(map(json.loads, text) for text in lines), strict=True):
        assert x["train_loss"] == pytest.approx(y["train_loss"], rel=rel)


def test_every_member_is_its_solo_run(small, monitor, executions, tmp_path) -> None:
    """Losses of every epoch of both phases, with members that differ in everything they may differ in."""
    got = train(executions("together"))
    for number, change in enumerate(MEMBERS):
        alone = execute(small(*change), tmp_path / f"alone{number}", device=CPU, monitor=monitor)
        assert_same(got[number], alone, rel=1e-4)
        assert got[number]["checkpoints"].keys() == alone["checkpoints"].keys()


def test_an_interrupted_ensemble_goes_on_exactly(executions) -> None:
    whole = train(executions("whole"))
    asked = iter(range(10**6))
    stopping = executions("halves", should_stop=lambda: next(asked) >= 20)  # in the middle of a round
    with pytest.raises(Interrupted):
        train(stopping)
    saved = [torch.load(e.directory.resume, weights_only=True)["trainer"] for e in stopping]
    assert len({s["progress"]["step"] for s in saved}) == 1, "all members have stopped between the same two steps"
    for s in saved:
        tensors = [*s["model"].values(), *(t for own in s["optimizer"]["state"].values() for t in own.values())]
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors), "nobody saves the others' numbers"
    for a, b in zip(whole, train(executions("halves", resume=True)), strict=True):
        assert_equal_runs(Path(a["run_dir"]), Path(b["run_dir"]))


class Killed(BaseException):
    """Ends everything at once, as a kill does: nothing that saves on the way out hears of it."""


@pytest.mark.parametrize("written", [0, 2, 5, 31, 62])
def test_a_killed_ensemble_goes_on_exactly(executions, tmp_path, monkeypatch, written: int) -> None:
    """Killed between any two writes of any members' saves, results and checkpoints; saved before every update."""
    monkeypatch.setattr(execution, "SECONDS_BETWEEN_SAVES", 0.0)
    whole, left = train(executions("whole")), iter(range(10**6))

    def kill_before(write):
        def maybe(*arguments, **keywords):
            if next(left) == written:
                raise Killed
            return write(*arguments, **keywords)

        return maybe

    with monkeypatch.context() as patch:
        for module, name in ((execution, "write_atomically"), (RunDirectory, "write_json"), (Path, "replace")):
            patch.setattr(module, name, kill_before(getattr(module, name)))
        with pytest.raises(Killed):
            train(executions("killed"))
    for a, b in zip(whole, train(executions("killed", resume=True)), strict=True):
        assert_equal_runs(Path(a["run_dir"]), Path(b["run_dir"]))
        assert not list(Path(b["run_dir"]).glob("resume*"))


def test_a_member_that_is_behind_catches_up(executions, small, monitor, tmp_path) -> None:
    """After a kill the members' last saves may be of different steps."""
    asked = iter(range(10**6))
    late = executions("late")[0]
    with pytest.raises(Interrupted):
        execute(late.config, late.directory.path, device=CPU, monitor=monitor, should_stop=lambda: next(asked) >= 3)
    asked_others = iter(range(10**6))
    others = executions("late", should_stop=lambda: next(asked_others) >= 12)[1:]
    with pytest.raises(Interrupted):
        train(others)
    got = train(executions("late", resume=True))
    for number, change in enumerate(MEMBERS):
        alone = execute(small(*change), tmp_path / f"alone{number}", device=CPU, monitor=monitor)
        assert_same(got[number], alone, rel=1e-4)


def test_a_member_that_diverges_makes_the_others_save(executions, small, monitor) -> None:
    changes = (MEMBERS[0], ("seed=2", "pretrain.optimizer.lr=1e18"))
    members = executions("diverging", changes=changes)
    with pytest.raises(RunError, match="diverged"):
        train(members)
    saved = torch.load(members[0].directory.resume_next, weights_only=True)["trainer"]["progress"]["step"]
    assert saved > 0
    seen: list[int] = []
    alone = {"resume": True, "watch": lambda moment: seen.append(moment.step)}
    execute(small(*MEMBERS[0]), members[0].directory.path, device=CPU, monitor=monitor, **alone)
    assert seen[0] == saved + 1


def test_a_watch_sees_each_member_as_it_would_be_alone(executions, small, monitor, tmp_path) -> None:
    def sums(seen: dict):
        def watch(moment: Moment) -> None:
            size = sum(p.double().abs().sum().item() for p in moment.model.parameters())
            seen[moment.phase, moment.step, len(moment.data.train)] = size

        return watch

    seen: dict = {}
    train(executions("watched", watch=sums(seen), changes=MEMBERS[1:]))
    alone: dict = {}
    for number, change in enumerate(MEMBERS[1:]):
        execute(small(*change), tmp_path / f"solo{number}", device=CPU, monitor=monitor, watch=sums(alone))
    assert seen.keys() == alone.keys()
    assert list(seen.values()) == pytest.approx([alone[key] for key in seen], rel=1e-4)


def test_runs_that_cannot_be_one_ensemble_are_refused(small) -> None:
    with pytest.raises(NotApplicableError, match="differ in model"):
        check_alike([small(), small("model.layers=2")])
    with pytest.raises(NotApplicableError, match="differ in pretrain"):
        check_alike([small(), small("pretrain.batch_size=7")])
    with pytest.raises(NotApplicableError, match="graph"):
        check_alike([small("engine.mode=graph"), small("engine.mode=graph", "seed=1")])
    check_alike([small(*change) for change in MEMBERS])
