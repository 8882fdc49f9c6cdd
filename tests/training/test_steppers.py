"""Every engine computes the same; what cannot be had is said."""

import contextlib
import copy
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
from attnprobe.training.steppers import Graph, choose_mode

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graph_equals_eager() -> None:
    """The check that must pass before "auto" may choose the graph: it has never been run."""
    from attnprobe.bench.gpu import differences

    losses, parameters = differences(CUDA, Engine(attention="math"), "graph")
    assert losses < 1e-5
    assert parameters < 1e-4


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

    def __init__(self, engine: Graph) -> None:
        self.engine = engine

    @contextlib.contextmanager
    def record(self, graph: object) -> Iterator[None]:
        engine = self.engine
        before = copy.deepcopy((engine.model.state_dict(), engine.optimizer.state_dict()))
        yield
        engine._restore(*before)

    def replay(self) -> None:
        engine = self.engine
        engine.sums.copy_(engine.compute(engine.batch, engine.epoch))


@pytest.fixture
def recorded(monkeypatch):
    """Makes trainers whose engine is ``Graph`` with torch.cuda's part in it played by the CPU."""

    class Stream:
        def __init__(self, device: torch.device) -> None: ...
        def wait_stream(self, other: object) -> None: ...

    def make(mode: str) -> Trainer:
        trainer = make_trainer("eager")
        if mode == "graph":
            phase, engine = trainer.phase, trainer.engine
            graph = Graph(trainer.model, trainer.optimizer, phase, engine, trainer.team, seed=trainer.seed)
            tape = RecordedOnTheCPU(graph)
            monkeypatch.setattr(torch.cuda, "Stream", Stream)
            monkeypatch.setattr(torch.cuda, "current_stream", Stream)
            monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
            monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: tape)
            monkeypatch.setattr(torch.cuda, "graph", tape.record)
            trainer.stepper = graph
        return trainer

    return make


def advance(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for step in range(trainer.progress.step, trainer.progress.step + steps):
        loss, count, _ = trainer.update(trainer.batches(step // 4)[step % 4], step // 4)
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
    advance(first, 6)
    second = recorded("graph")
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert advance(second, 4) == wanted[6:]
    for a, b in zip(through.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
