import json
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError, RunError
from attnprobe.training import execute as execution
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from tests.training.equality import assert_equal_runs, states

CPU = torch.device("cpu")


def test_same_seed_same_bits(small, monitor, tmp_path) -> None:
    for name in ("one", "two"):
        execute(small(), tmp_path / name, device=CPU, monitor=monitor)
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    execute(small("seed=1"), tmp_path / "other", device=CPU, monitor=monitor)
    assert not torch.equal(
        states(tmp_path / "other")["finetuned"]["label_head.weight"],
        states(tmp_path / "one")["finetuned"]["label_head.weight"],
    )


@pytest.mark.parametrize("stop_at", [0, 1, 4, 9, 13, 15, 20, 27])
def test_stop_and_resume_equals_running_through(small, monitor, tmp_path, stop_at: int) -> None:
    """53 // 11 = 4 steps in each of 3 epochs, then 53 // 13 = 4 in each of 4: stops inside and between both phases."""
    execute(small(), tmp_path / "through", device=CPU, monitor=monitor)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_at + 1

    with pytest.raises(Interrupted):
        execute(small(), tmp_path / "halves", device=CPU, monitor=monitor, should_stop=should_stop)
    assert (tmp_path / "halves" / "resume.pt").exists()
    execute(small(), tmp_path / "halves", device=CPU, monitor=monitor, resume=True)
    assert not (tmp_path / "halves" / "resume.pt").exists()
    assert_equal_runs(tmp_path / "through", tmp_path / "halves")


def test_result_manifest_and_settings(small, monitor, tmp_path) -> None:
    result = execute(small(), tmp_path / "run", device=CPU, monitor=monitor)
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) >= {
        "run_dir", "checkpoints", "train_accuracy", "validation_accuracy", "test_accuracy", "seconds", "seed",
    }  # fmt: skip
    assert list(result["checkpoints"]) == ["init", "pretrained", "finetuned"]
    assert all(Path(path).exists() for path in result["checkpoints"].values())
    assert 0 <= result["test_accuracy"] <= 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["torch"] == torch.__version__
    assert {phase: len(digest) for phase, digest in manifest["data_sha256"].items()} == {
        "pretrained": 64,
        "finetuned": 64,
    }
    assert len(monitor.epochs) == 3 + 4
    again = execute(small(), tmp_path / "run", device=CPU, monitor=monitor, resume=True)
    assert again == result  # a finished run is not run again
    assert len(monitor.epochs) == 3 + 4


def test_best_validation_epoch_is_kept(small, monitor, tmp_path) -> None:
    execute(small("finetune.epochs=9", "finetune.optimizer.lr=0.02"), tmp_path / "run", device=CPU, monitor=monitor)
    records = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for phase, key, best in (("pretrained", "validation_loss", min), ("finetuned", "validation_accuracy", max)):
        values = [r[key] for r in records if r["phase"] == phase]
        checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / f"{phase}.pt")
        assert checkpoint.epoch == values.index(best(values)) + 1  # the first of equals
        assert checkpoint.numbers[key] == best(values)


def test_from_scratch_starts_where_pretraining_starts(small, monitor, tmp_path) -> None:
    execute(small(), tmp_path / "spt", device=CPU, monitor=monitor)
    config = small()
    scratch = type(config)(task=config.task, model=config.model, finetune=config.finetune)
    execute(scratch, tmp_path / "scratch", device=CPU, monitor=monitor)
    a, b = states(tmp_path / "spt")["init"], states(tmp_path / "scratch")["init"]
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert set(states(tmp_path / "scratch")) == {"init", "finetuned"}


@pytest.mark.parametrize(
    ("transfer", "carried"),
    [
        ("qk", (".attention.q.", ".attention.k.")),
        ("attention", (".attention.",)),
        ("none", ()),
        ("['norm.*']", ("norm.",)),
    ],
)
def test_transfer_carries_exactly_what_was_asked(small, monitor, tmp_path, transfer: str, carried) -> None:
    """With finetuning frozen to the label head, the finetuned model shows what it was given."""
    frozen = "finetune.freeze=['embedding.*', 'blocks.*', 'norm.*', 'reconstruction_head.*']"
    execute(small(f"finetune.transfer={transfer}", frozen), tmp_path / "run", device=CPU, monitor=monitor)
    found = states(tmp_path / "run")
    for name, tensor in found["finetuned"].items():
        if name.startswith("label_head"):
            continue
        is_carried = any(part in name for part in carried) and (transfer != "['norm.*']" or name.startswith("norm."))
        assert torch.equal(tensor, found["pretrained" if is_carried else "init"][name]), name


def test_freeze_keeps_parameters_fixed(small, monitor, tmp_path) -> None:
    execute(
        small("pretrain.freeze=attention", "finetune.freeze=attention"), tmp_path / "run", device=CPU, monitor=monitor
    )
    found = states(tmp_path / "run")
    for name, tensor in found["finetuned"].items():
        unchanged = torch.equal(tensor, found["init"][name])
        assert unchanged == (".attention." in name), name


LEVELS = "task={name='pathfinder', contour_length=3, downsample=8, n_train=40, n_validation=10, n_test=10}"


@pytest.mark.parametrize("changes", [["pretrain.objective.loss=l2"], [LEVELS, "pretrain.objective.loss=cross_entropy"]])
def test_finetuning_from_an_earlier_checkpoint_equals_one_run(changes, small, monitor, tmp_path) -> None:
    """With any head of the reconstruction, which the finetuned model keeps and remembers the purpose of."""
    config = small(*changes, "pretrain.objective.ratio=0.3")
    execute(config, tmp_path / "whole", device=CPU, monitor=monitor)
    second = type(config)(
        task=config.task,
        model=config.model,
        finetune=config.finetune,
        pretrained=tmp_path / "whole" / "checkpoints" / "pretrained.pt",
    )
    execute(second, tmp_path / "second", device=CPU, monitor=monitor)
    a, b = states(tmp_path / "whole")["finetuned"], states(tmp_path / "second")["finetuned"]
    assert all(torch.equal(a[key], b[key]) for key in a)
    whole, other = (load_checkpoint(tmp_path / run / "checkpoints" / "finetuned.pt") for run in ("whole", "second"))
    assert other.objectives() == whole.objectives() == [config.pretrain.objective, config.finetune.objective]


def test_pretraining_on_other_data(small, monitor, tmp_path) -> None:
    swap = ["pretrain.task={name='textures', side=5, classes=3, n_train=40, n_validation=10, n_test=10}"]
    execute(small(*swap), tmp_path / "run", device=CPU, monitor=monitor)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "pretrained.pt").spec.classes == 3
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "finetuned.pt").spec.classes == 6


def test_transfer_that_cannot_fit_or_matches_nothing(small, monitor, tmp_path) -> None:
    with pytest.raises(ConfigError, match="matches no parameter") as caught:
        execute(small("finetune.transfer=['blocks.*.attn.*']"), tmp_path / "a", device=CPU, monitor=monitor)
    assert "embedding" in caught.value.hint
    swap = ["model.positions=learned", "pretrain.task={name='textures', side=4, n_train=40}"]
    with pytest.raises(ConfigError, match=r"cannot carry over positions\.table"):
        execute(small(*swap), tmp_path / "b", device=CPU, monitor=monitor)
    for frozen in ("finetune.freeze=['*']", "pretrain.freeze=all"):  # what only the other loss uses does not count
        with pytest.raises(ConfigError, match="nothing to train"):
            execute(small(frozen), tmp_path / "c", device=CPU, monitor=monitor)
    assert not any(tmp_path.iterdir())  # refused before anything was trained or written


def test_objectives_that_do_not_fit_are_refused_before_anything_is_written(small, monitor, tmp_path) -> None:
    with pytest.raises(ConfigError, match="values are continuous"):
        execute(small("pretrain.objective.loss=cross_entropy"), tmp_path / "a", device=CPU, monitor=monitor)
    with pytest.raises(ConfigError, match="must be false for masked"):
        execute(small("model.causal=true"), tmp_path / "a", device=CPU, monitor=monitor)
    with pytest.raises(ConfigError, match="must be true for causal"):
        execute(small("pretrain.objective.name=causal"), tmp_path / "a", device=CPU, monitor=monitor)
    assert not (tmp_path / "a").exists()


def test_causal_pretraining_and_bfloat16_run(small, monitor, tmp_path) -> None:
    changes = ["model.causal=true", "pretrain.objective.name=causal", "engine.precision=bfloat16"]
    result = execute(small(*changes), tmp_path / "run", device=CPU, monitor=monitor)
    assert result["test_loss"] < 3


@pytest.mark.parametrize("kill_after", [1, 6, 17])  # in the first epoch, in a later one, in the second phase
def test_a_killed_run_goes_on_from_its_last_save(kill_after, small, monitor, tmp_path, monkeypatch) -> None:
    """Nothing is saved on the way out; what is saved before every step is enough, also in the middle of an epoch."""
    monkeypatch.setattr(execution, "SECONDS_BETWEEN_SAVES", 0.0)
    execute(small(), tmp_path / "through", device=CPU, monitor=monitor)
    steps = iter(range(10**6))

    def kill(samples: int) -> None:
        if next(steps) == kill_after:
            raise SystemError("killed")

    monkeypatch.setattr(monitor, "stepped", kill)
    with pytest.raises(SystemError):
        execute(small(), tmp_path / "killed", device=CPU, monitor=monitor)
    saved = torch.load(tmp_path / "killed" / "resume.pt", weights_only=True)["trainer"]["progress"]
    assert saved["step"] == (kill_after if kill_after < 12 else kill_after - 12)
    execute(small(), tmp_path / "killed", device=CPU, monitor=monitor, resume=True)
    assert_equal_runs(tmp_path / "through", tmp_path / "killed")


def test_divergence_is_one_clear_error(small, monitor, tmp_path) -> None:
    with pytest.raises(RunError, match="diverged"):
        execute(small("pretrain.optimizer.lr=1e18"), tmp_path / "run", device=CPU, monitor=monitor)


def test_resuming_on_other_data_is_refused(small, monitor, tmp_path, monkeypatch) -> None:
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor, should_stop=lambda: next(asked))
    real = type(small().task).load

    def changed(self, data_dir=None):
        data = real(self, data_dir)
        data.train.labels[0] = (data.train.labels[0] + 1) % 4
        return data

    monkeypatch.setattr(type(small().task), "load", changed)
    with pytest.raises(ArtifactError, match="started on other data"):
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor, resume=True)


def test_a_finished_run_that_was_moved_says_where_it_is(small, monitor, tmp_path) -> None:
    execute(small(), tmp_path / "before", device=CPU, monitor=monitor)
    (tmp_path / "before").rename(tmp_path / "after")
    result = execute(small(), tmp_path / "after", device=CPU, monitor=monitor, resume=True)
    assert result["run_dir"] == str(tmp_path / "after")
    assert all(Path(path).exists() for path in result["checkpoints"].values())


def test_occupied_directories(small, monitor, tmp_path) -> None:
    out = tmp_path / "run"
    execute(small(), out, device=CPU, monitor=monitor)
    with pytest.raises(ConfigError, match="is not empty") as caught:
        execute(small(), out, device=CPU, monitor=monitor)
    assert "--resume" in caught.value.hint
    with pytest.raises(ConfigError, match="started with other settings"):
        execute(small("seed=5"), out, device=CPU, monitor=monitor, resume=True)
    execute(small("seed=5"), out, device=CPU, monitor=monitor, overwrite=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="is no run directory that attnprobe made"):
        execute(small(), precious, device=CPU, monitor=monitor, overwrite=True)
    assert (precious / "thesis.tex").read_text() == "x"
    with pytest.raises(ArtifactError, match="no run to resume"):
        execute(small(), precious, device=CPU, monitor=monitor, resume=True)
    with pytest.raises(ConfigError, match="is a file"):
        execute(small(), precious / "thesis.tex", device=CPU, monitor=monitor)


def test_full_disk_is_one_clear_error_and_leaves_no_half_file(small, monitor, tmp_path, monkeypatch) -> None:
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attnprobe.files.os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        execute(small(), tmp_path / "run", device=CPU, monitor=monitor)
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], [".attnprobe.lock"])
