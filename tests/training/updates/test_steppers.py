"""Every stepper computes the same; what cannot be had is said."""

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator

import pytest
import torch

from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import MaskedReconstruction
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.execute import execute
from attnprobe.training.loop import Trainer
from attnprobe.training.updates.steppers import Graph, ModeChoice, choose_mode

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = Spec(length=13, classes=3, channels=2)


def make_trainer(mode: str) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    split = Split(inputs=torch.randn(20, 13, 2, generator=generator), labels=torch.zeros(20).long())
    phase = Phase(objective=MaskedReconstruction(), batch_size=5, epochs=3, optimizer=Optimizer(clip=1.0))
    model = make_model(TransformerConfig(d_model=12, heads=2), SPEC, "values", seed=0)
    data = Data(spec=SPEC, train=split, validation=split, test=split)
    trainer = Trainer(model, data, "pretrained", phase, Engine(mode=mode), seed=4)
    assert trainer.choice.mode == mode
    return trainer


def train(mode: str, steps: int = 6) -> tuple[list[float], torch.nn.Module]:
    trainer = make_trainer(mode)
    return advance(trainer, steps), trainer.model


def test_auto_is_the_verified_path_everywhere() -> None:
    for device in (CPU, CUDA):
        assert choose_mode(Engine(), device, one_shape=True, processes=1).mode == "eager"
        assert choose_mode(Engine(), device, one_shape=True, processes=1).warning is None


@pytest.mark.parametrize(
    ("device", "one_shape", "processes", "reason"),
    [(CPU, True, 1, "CUDA"), (CUDA, False, 1, "different lengths"), (CUDA, True, 2, "several processes")],
)
def test_a_graph_that_cannot_be_had_is_a_warning(device, one_shape, processes, reason) -> None:
    choice = choose_mode(Engine(mode="graph"), device, one_shape=one_shape, processes=processes)
    assert choice.mode == "eager"
    assert choice.warning is not None
    assert reason in choice.warning
    assert choose_mode(Engine(mode="graph"), CUDA, one_shape=True, processes=1).mode == "graph"


def test_no_compiler_is_a_warning(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    choice = choose_mode(Engine(mode="compiled"), CPU, one_shape=True, processes=1)
    assert choice.mode == "eager"
    assert "compiler" in (choice.warning or "")


def test_the_warning_is_heard(small, monitor, tmp_path) -> None:
    execute(small("engine.mode=graph", "pretrain.epochs=1", "finetune.epochs=1"), tmp_path, device=CPU, monitor=monitor)
    assert sum("engine.mode 'graph' is not possible" in text for text in monitor.messages) == 2


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not os.environ.get("ATTNPROBE_TEST_COMPILE"), reason="takes a minute: set ATTNPROBE_TEST_COMPILE=1")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_equals_eager() -> None:
    eager, one = train("eager")
    compiled, two = train("compiled")
    assert compiled == pytest.approx(eager, rel=1e-5)
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        if not name.endswith("attention.k.bias"):  # its gradient is zero in exact arithmetic, so AdamW follows rounding
            assert (a - b).abs().max() < 1e-4, name


class RecordedOnTheCPU:
    """Stands in for a CUDA graph: nothing is computed while it is recorded, and a replay computes all of it."""

    def __init__(self, stepper: Graph) -> None:
        self.stepper = stepper

    @contextlib.contextmanager
    def record(self, graph: object, stream: object) -> Iterator[None]:
        stepper = self.stepper
        model, optimizer = copy.deepcopy((stepper.model.state_dict(), stepper.optimizer.state_dict()["state"]))
        yield
        stepper._restore(model, optimizer)

    def replay(self) -> None:
        stepper = self.stepper
        stepper.sums.copy_(stepper.compute(stepper.batch, stepper.epoch))


class Stream:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: object) -> None: ...


@pytest.fixture
def cuda(monkeypatch) -> list[object]:
    """The CPU plays torch.cuda's part; the devices that were made the current one, in order."""
    entered: list[object] = []

    @contextlib.contextmanager
    def device(wanted: object) -> Iterator[None]:
        entered.append(wanted)
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "set_stream", entered.append)
    return entered


@pytest.fixture
def recorded(monkeypatch, cuda):
    """Makes trainers whose stepper is ``Graph`` with torch.cuda's part in it played by the CPU."""

    def make(mode: str) -> Trainer:
        trainer = make_trainer("eager")
        if mode == "graph":
            phase, engine = trainer.phase, trainer.engine
            graph = Graph(trainer.model, trainer.optimizer, phase, engine, trainer.world, seed=trainer.seed)
            tape = RecordedOnTheCPU(graph)
            monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: tape)
            monkeypatch.setattr(torch.cuda, "graph", tape.record)
            trainer.stepper = graph
        return trainer

    return make


def advance(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for step in range(trainer.progress.step, trainer.progress.step + steps):
        trainer.progress.sums = trainer.update(trainer.batches(step // 4)[step % 4], step // 4)
        loss, count, _ = trainer.progress.sums
        trainer.progress.step += 1
        losses.append(float(loss / count))
    return losses


def test_around_a_graph_inputs_epoch_and_rate_change_and_the_warm_up_leaves_no_trace(recorded) -> None:
    eager, graph = recorded("eager"), recorded("graph")
    assert advance(graph, 10) == pytest.approx(advance(eager, 10), rel=1e-6)  # the rate is a float32 tensor here
    for (name, a), b in zip(eager.model.named_parameters(), graph.model.parameters(), strict=True):
        if not name.endswith("attention.k.bias"):
            assert (a - b).abs().max() < 1e-6, name


def test_a_graph_goes_on_exactly_from_a_saved_state(recorded) -> None:
    through = recorded("graph")  # each is recorded at its first update, so one after the other
    wanted = advance(through, 10)
    first = recorded("graph")
    advance(first, 3)  # within the first epoch
    second = recorded("graph")
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert advance(second, 7) == wanted[3:]
    for a, b in zip(through.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_graph_is_captured_on_the_devices_own_stream(recorded, cuda, monkeypatch) -> None:
    trainer, used = recorded("graph"), []
    record = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: used.append(stream) or record(graph, stream))
    monkeypatch.setattr(trainer.stepper, "device", torch.device("cuda:1"))
    monkeypatch.setattr(trainer.stepper, "arithmetic", contextlib.nullcontext)
    advance(trainer, 3)
    assert cuda == [torch.device("cuda:1"), "left"]  # once, before the first update
    assert [stream.device for stream in used] == [torch.device("cuda:1")]


@contextlib.contextmanager
def no_capture(graph: object, stream: object) -> Iterator[None]:
    yield
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_capture_that_fails_leaves_everything_as_it_was(recorded, cuda, monkeypatch) -> None:
    eager, graph, through = recorded("eager"), recorded("graph"), recorded("eager")
    monkeypatch.setattr(torch.cuda, "graph", no_capture)
    assert advance(graph, 6) == advance(eager, 6)
    assert graph.stepper.failure == "operation not permitted when stream is capturing"
    assert isinstance(cuda[-1], Stream)  # the stream from before is the current one again
    for a, b in zip(eager.model.parameters(), graph.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for one, two in zip(eager.optimizer.param_groups, graph.optimizer.param_groups, strict=True):
        assert {k: v for k, v in one.items() if k != "params"} == {k: v for k, v in two.items() if k != "params"}
    first, resumed = recorded("eager"), recorded("graph")  # the same from the middle of an epoch
    advance(first, 3)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    monkeypatch.setattr(torch.cuda, "graph", no_capture)
    assert advance(resumed, 4) == advance(through, 7)[3:]


def test_a_capture_that_fails_is_said_once_and_kept_in_the_manifest(small, monitor, tmp_path, cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", no_capture)
    monkeypatch.setattr("attnprobe.training.loop.choose_mode", lambda engine, *_, **__: ModeChoice(mode=engine.mode))
    metrics = []
    for mode in ("graph", "eager"):
        execute(small(f"engine.mode={mode}"), tmp_path / mode, device=CPU, monitor=monitor)
        records = [json.loads(line) for line in (tmp_path / mode / "metrics.jsonl").read_text().splitlines()]
        metrics.append([{k: v for k, v in r.items() if k not in ("seconds", "time")} for r in records])
    assert metrics[0] == metrics[1]
    assert sum("not permitted when stream is capturing; training eagerly" in text for text in monitor.messages) == 2
    modes = json.loads((tmp_path / "graph" / "manifest.json").read_text())["mode"]
    assert modes.keys() == {"pretrained", "finetuned"}
    assert all(text.startswith("eager (engine.mode 'graph' is not possible: operation") for text in modes.values())
