"""A mixer that somebody else wrote is trained like attention: carried over, frozen, resumed, and in an ensemble."""

import dataclasses
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import make_model
from attnprobe.models.mixers import MIXERS, Mixer
from attnprobe.run import Engine
from attnprobe.tasks import Spec
from attnprobe.training.distributed import World
from attnprobe.training.ensembles.ensemble import check_alike, together
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.run_directory import RunDirectory
from attnprobe.training.updates.optim import make_optimizer
from attnprobe.training.updates.steppers import STEPPERS
from tests.models.foreign import Recurrence, RecurrenceSettings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "recurrence", RecurrenceSettings)


@pytest.fixture
def made(small, monitor, tmp_path):
    """Carry out a run of the recurrence; its directory."""

    def train(name: str, *changes: str, **fields) -> Path:
        config = small("model.mixer={name='recurrence', spread=0.5}", *changes)
        execute(config, tmp_path / name, device=CPU, monitor=monitor, **fields)
        return tmp_path / name

    return train


def states(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.stem: load_checkpoint(p).state for p in (path / "checkpoints").glob("*.pt")}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def test_it_trains_and_its_checkpoint_opens(made) -> None:
    path = made("run")
    checkpoint = load_checkpoint(path / "checkpoints" / "finetuned.pt")
    assert checkpoint.run.model.mixer == RecurrenceSettings(spread=0.5)
    model = checkpoint.make_model()
    assert not changed(checkpoint.state, model.state_dict())
    own = {name for name in checkpoint.state if ".recurrence." in name}
    assert own == {f"blocks.0.recurrence.{part}" for part in ("decay", "out.weight", "out.bias")}
    found = states(path)
    assert own <= changed(found["init"], found["pretrained"])


def test_what_is_carried_over_and_what_stays_fixed(made) -> None:
    found = states(made("run", "finetune.transfer=recurrence", "finetune.freeze=decays", "finetune.selection=last"))
    moved = changed(found["pretrained"], found["finetuned"])
    assert "blocks.0.recurrence.decay" not in moved  # carried over, then frozen
    assert "blocks.0.recurrence.out.weight" in moved
    assert "blocks.0.recurrence.decay" in changed(found["init"], found["finetuned"])


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
@pytest.mark.parametrize("field", ["transfer", "freeze"])
def test_sets_of_attention_are_refused_before_anything_is_written(made, tmp_path, phase: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} 'qk' names no parameters of this model") as caught:
        made("refused", f"{phase}.{field}=qk")
    assert "decays" in caught.value.hint
    assert not list(tmp_path.glob("refused/**/*.pt"))


def test_stopped_and_resumed_it_is_the_same_run(made) -> None:
    whole, asked = states(made("whole")), iter(range(10**6))
    with pytest.raises(Interrupted):
        made("halves", should_stop=lambda: next(asked) == 7)
    halves = states(made("halves", resume=True))
    assert whole.keys() == halves.keys() == {"init", "pretrained", "finetuned"}
    assert not any(changed(state, halves[name]) for name, state in whole.items())


MEMBERS = (("seed=1",), ("seed=2", "finetune.optimizer.lr=0.004"), ("seed=3", "pretrain.optimizer.weight_decay=0.1"))


def train_together(small, monitor, tmp_path) -> list[dict]:
    configs = [small("model.mixer=recurrence", *member) for member in MEMBERS]
    executions = [
        Execution(config=config, directory=RunDirectory(tmp_path / f"member{n}"), device=CPU, monitor=monitor)
        for n, config in enumerate(configs)
    ]
    return together([updates(e) for e in executions])


def test_a_member_of_an_ensemble_is_its_solo_run(small, monitor, tmp_path) -> None:
    """With other learning rates and decays; the recurrence's own rate must hold in each."""
    train_together(small, monitor, tmp_path)
    for number, member in enumerate(MEMBERS):
        config = small("model.mixer=recurrence", *member)
        execute(config, tmp_path / f"solo{number}", device=CPU, monitor=monitor)
        one, other = states(tmp_path / f"member{number}"), states(tmp_path / f"solo{number}")
        for stage in ("pretrained", "finetuned"):
            assert changed(one["init"], one[stage])
            for name, tensor in one[stage].items():
                assert torch.allclose(tensor, other[stage][name], rtol=1e-3, atol=2e-5), (stage, name)


def test_its_own_learning_rate_holds(made) -> None:
    """A rate of almost nothing leaves it where it was, on any schedule; without one it moves."""
    before = states(made("usual"))
    moved = (before["pretrained"]["blocks.0.recurrence.decay"] - before["init"]["blocks.0.recurrence.decay"]).abs()
    steps = 3 * (53 // 11)
    assert 0 < moved.max() <= 1.5 * steps * 1e-4  # an update of AdamW is about its rate
    rest = (before["pretrained"]["blocks.0.recurrence.out.bias"] - before["init"]["blocks.0.recurrence.out.bias"]).abs()
    assert rest.max() > 1.5 * steps * 1e-4


def test_an_ensemble_is_refused_where_the_twin_is_missing(small, monitor, tmp_path, monkeypatch) -> None:
    solitary = type("Solitary", (Recurrence,), {"stack": classmethod(Mixer.stack.__func__)})
    monkeypatch.setattr(RecurrenceSettings, "layer", solitary)
    with pytest.raises(NotApplicableError, match=r"blocks\.0\.recurrence cannot be stacked.*mixer Solitary") as caught:
        train_together(small, monitor, tmp_path)
    assert "--together" in caught.value.hint
    with pytest.raises(NotApplicableError, match="mixer 'recurrence' cannot be stacked"):  # before anything is written
        check_alike([small("model.mixer=recurrence", *member) for member in MEMBERS])


def test_no_attention_kernel_is_chosen_for_it(made) -> None:
    manifest = RunDirectory(made("run", "pretrain.epochs=1", "finetune.epochs=1")).read_manifest()
    assert manifest["attention"] == {"pretrained": "auto", "finetuned": "auto"}


def test_settings_differ_by_mixer(small) -> None:
    attention, other = small(), small("model.mixer=recurrence")
    assert dataclasses.replace(other.model, mixer=attention.model.mixer) == attention.model


def test_a_graph_keeps_the_rate_of_every_group(small) -> None:
    """Rates live in tensors that the captured update reads; nothing is captured here."""
    phase = small("model.mixer=recurrence").finetune
    model = make_model(small("model.mixer=recurrence").model, Spec(length=7, classes=2), "values", seed=0)
    optimizer = make_optimizer(phase.optimizer, model)
    graph = STEPPERS["graph"](model, optimizer, phase, Engine(), World(), seed=0)
    for rate in (0.5, 0.25):
        graph._set(3, rate)
        found = {group.get("scale", 1.0): group["lr"].item() for group in optimizer.param_groups}
        assert found == pytest.approx({1.0: rate, 1e-4 / phase.optimizer.lr: rate * 1e-4 / phase.optimizer.lr})
    assert graph.epoch == 3
