"""A loss, a gradient or a parameter that is no finite number, injected into small runs: 3 epochs of 4 updates of
self-pretraining, then 4 of 4.
"""

import json
import tomllib

import pytest
import torch

from attnprobe.errors import ConfigError, NotApplicableError, RunError
from attnprobe.training import execute as execution
from attnprobe.training.ensembles.ensemble import check_alike
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted, Trainer
from tests.training.equality import assert_equal_runs, records, states
from tests.training.guards.faults import at, inject

CPU = torch.device("cpu")


@pytest.fixture
def train(small, monitor, tmp_path, monkeypatch):
    """Runs that save before every update."""
    monkeypatch.setattr(execution, "SECONDS_BETWEEN_SAVES", 0.0)

    def run(name: str, *changes: str, **options):
        return execute(small(*changes), tmp_path / name, device=CPU, monitor=monitor, **options)

    return run


def stopping(after: int):
    asked = iter(range(10**6))
    return lambda: next(asked) >= after


def saved(folder) -> dict:
    return torch.load(folder / "resume.pt", weights_only=True)["trainer"]


def is_finite(trainer: dict) -> bool:
    moments = [value for own in trainer["optimizer"]["state"].values() for value in own.values()]
    return all(bool(t.isfinite().all()) for t in (*trainer["model"].values(), *moments))


def test_a_nan_stops_at_once_and_names_what_is_left(train, tmp_path, monkeypatch) -> None:
    inject(monkeypatch, at("finetuned", 7))
    with pytest.raises(RunError, match=r"the finetuned phase diverged: update 7 \(epoch 2\) has loss nan") as caught:
        train("run")
    assert f"{tmp_path / 'run' / 'resume.pt'} holds the run after update 6 of the finetuned phase" in caught.value.hint
    assert "--resume and --on-nan skip" in caught.value.hint
    assert "finetune.optimizer.lr" in caught.value.hint
    state = saved(tmp_path / "run")
    assert state["progress"]["step"] == 6
    assert is_finite(state)


def test_a_run_that_stopped_goes_on_with_another_choice(train, tmp_path, monkeypatch) -> None:
    inject(monkeypatch, at("finetuned", 7))
    with pytest.raises(RunError, match="diverged"):
        train("run")
    train("run", "engine.on_nan=skip", resume=True)
    train("through", "engine.on_nan=skip")
    assert tomllib.loads((tmp_path / "run" / "run.toml").read_text())["engine"]["on_nan"] == "skip"
    a, b = states(tmp_path / "run"), states(tmp_path / "through")
    assert all(torch.equal(a[name][key], b[name][key]) for name in b for key in b[name])


def test_parameters_that_are_not_finite_never_replace_the_last_save(train, tmp_path, monkeypatch) -> None:
    """The loss of such an update is finite: only what it leaves behind is not."""
    inject(monkeypatch, at("pretrained", 5, kind="gradient"))
    with pytest.raises(RunError, match="after update 5 some parameters are not finite"):
        train("run")
    state = saved(tmp_path / "run")
    assert state["progress"]["step"] == 4
    assert is_finite(state)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_skipped_updates_change_nothing(train, tmp_path, monkeypatch, monitor, norm) -> None:
    """The run is the one in which these updates are never made; interrupted in between, it is the same again."""
    changes = ("engine.on_nan=skip", f"model.norm={norm}", "finetune.optimizer.clip=1.0")
    bad = (("pretrained", 2), ("pretrained", 3), ("finetuned", 14))
    with monkeypatch.context() as patch:
        real = Trainer.update

        def unless_bad(self, batch, epoch):
            made = (self.name, self.progress.step + 1) not in bad
            return real(self, batch, epoch) if made else torch.full((3,), torch.nan)

        patch.setattr(Trainer, "update", unless_bad)
        train("never made", *changes)
    kinds = dict(zip(bad, ("loss", "gradient", "gradient"), strict=True))
    inject(monkeypatch, lambda trainer: kinds.get((trainer.name, trainer.progress.step + 1)))
    train("left out", *changes)
    assert [line["left_out"] for line in records(tmp_path / "left out")] == [2, 0, 0, 0, 0, 0, 1]
    assert any("2 of 4 updates of epoch 1 were left out" in text for text in monitor.messages)
    with pytest.raises(Interrupted):
        train("halves", *changes, should_stop=stopping(2))
    train("halves", *changes, resume=True)
    assert_equal_runs(tmp_path / "never made", tmp_path / "left out")
    assert_equal_runs(tmp_path / "halves", tmp_path / "left out")


def test_an_epoch_of_nothing_but_skipped_updates_stops(train, monkeypatch) -> None:
    inject(monkeypatch, at("finetuned", 5, 6, 7, 8))
    with pytest.raises(RunError, match="4 of 4 updates of epoch 2 were left out"):
        train("run", "engine.on_nan=skip")


def test_restarts_halve_the_learning_rate(train, tmp_path, monkeypatch) -> None:
    """Until the third try; interrupted after the first, it goes on exactly."""
    inject(
        monkeypatch,
        lambda t: "loss" if t.name == "finetuned" and t.progress.step == 5 and len(t.progress.restarts) < 2 else None,
    )
    changes = ("engine.on_nan=restart", "finetune.optimizer.schedule=constant", "finetune.optimizer.warmup=0")
    train("through", *changes)
    manifest = json.loads((tmp_path / "through" / "manifest.json").read_text())
    assert manifest["restarts"] == {"finetuned": [{"update": 6, "back_to": 5}] * 2}
    rates = [line["lr"] for line in records(tmp_path / "through") if line["phase"] == "finetuned"]
    assert rates[1:] == [rates[0] / 4] * 3
    with pytest.raises(Interrupted):
        train("halves", *changes, should_stop=stopping(12 + 6))
    assert len(saved(tmp_path / "halves")["progress"]["restarts"]) == 1
    train("halves", *changes, resume=True)
    assert_equal_runs(tmp_path / "through", tmp_path / "halves")


def test_a_first_update_that_is_nan_restarts_the_phase(train, tmp_path, monkeypatch) -> None:
    inject(
        monkeypatch,
        lambda t: "loss" if (t.name, t.progress.step, t.progress.restarts) == ("finetuned", 0, []) else None,
    )
    monkeypatch.setattr(execution, "SECONDS_BETWEEN_SAVES", 1e9)
    train("run", "engine.on_nan=restart")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["restarts"] == {"finetuned": [{"update": 1, "back_to": 0}]}
    assert len(records(tmp_path / "run")) == 3 + 4


def test_the_fourth_restart_is_a_stop(train, tmp_path, monkeypatch) -> None:
    inject(monkeypatch, at("pretrained", 3))
    with pytest.raises(RunError, match="update 3") as caught:
        train("run", "engine.on_nan=restart")
    assert len(json.loads((tmp_path / "run" / "manifest.json").read_text())["restarts"]["pretrained"]) == 3
    assert "--on-nan skip" in caught.value.hint
    assert "--on-nan restart" not in caught.value.hint


def test_resume_files_of_earlier_versions_open(train, tmp_path) -> None:
    train("through")
    with pytest.raises(Interrupted):
        train("halves", should_stop=stopping(6))
    path = tmp_path / "halves" / "resume.pt"
    document = torch.load(path, weights_only=True)
    for name in ("losses", "before", "restarts"):
        del document["trainer"]["progress"][name]
    del document["run"]["engine"]["on_nan"]
    torch.save(document, path)
    settings = tmp_path / "halves" / "run.toml"
    settings.write_text(settings.read_text().replace('on_nan = "stop"\n', ""))
    train("halves", resume=True)
    assert_equal_runs(tmp_path / "through", tmp_path / "halves")


@pytest.mark.parametrize("choice", ["skip", "restart"])
def test_ensembles_refuse_other_choices_than_stop(small, choice) -> None:
    with pytest.raises(NotApplicableError, match=f"engine.on_nan '{choice}'"):
        check_alike([small(f"engine.on_nan={choice}", f"seed={seed}") for seed in (0, 1)])


def test_unknown_choices_are_refused(small) -> None:
    with pytest.raises(ConfigError, match="on_nan"):
        small("engine.on_nan=ignore")
