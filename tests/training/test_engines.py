"""Every engine computes the same; what cannot be had is said."""

import os
import shutil

import pytest
import torch

from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import MaskedReconstruction
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.engines import choose_mode
from attnprobe.training.execute import execute
from attnprobe.training.loop import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = Spec(length=13, classes=3, channels=2)


def train(mode: str, steps: int = 6) -> tuple[list[float], torch.nn.Module]:
    generator = torch.Generator().manual_seed(0)
    split = Split(inputs=torch.randn(20, 13, 2, generator=generator), labels=torch.zeros(20).long())
    phase = Phase(objective=MaskedReconstruction(), batch_size=5, epochs=3, optimizer=Optimizer(clip=1.0))
    model = make_model(TransformerConfig(d_model=12, heads=2), SPEC, "values", seed=0)
    data = Data(spec=SPEC, train=split, validation=split, test=split)
    trainer = Trainer(model, data, "pretrained", phase, Engine(mode=mode), seed=4)
    assert trainer.choice.mode == mode
    losses = []
    for step in range(steps):
        loss, count, _ = trainer.update(trainer.batches(step // 4)[step % 4], step // 4)
        trainer.progress.step += 1
        losses.append(float(loss / count))
    return losses, model


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
    from attnprobe.bench.gpu import graph_difference

    assert graph_difference(CUDA) < 1e-6


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
