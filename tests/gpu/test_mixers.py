"""Every mixer on a GPU: its numbers beside float64 on the CPU, and the recorded step beside the eager one."""

import dataclasses

import pytest
import torch

from attnprobe.bench.problem import Problem
from attnprobe.models import Transformer, make_model
from attnprobe.models.mixers import MIXERS
from attnprobe.run import Engine
from attnprobe.training.loop import Trainer
from tests.models.devices import CASES, TOLERANCE, error, model

CUDA = torch.device("cuda")
SMALL = Problem(length=96, batch=4, batches=4)
STEPS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfMixer(Problem):
    mixer: str

    def model(self) -> Transformer:
        return make_model(model(self.mixer).config, self.spec, "values", seed=self.seed)


def losses(trainer: Trainer) -> torch.Tensor:
    found = []
    for step in range(STEPS):
        epoch, position = divmod(step, trainer.steps_per_epoch)
        loss, count, _ = trainer.update(trainer.batches(epoch)[position], epoch)
        trainer.progress.step += 1
        found.append(loss / count)
    return torch.stack(found).double().cpu()


@pytest.mark.parametrize(("name", "causal"), CASES)
def test_it_computes_what_float64_on_the_cpu_does(name: str, causal: bool) -> None:
    assert error(name, CUDA, causal=causal) < TOLERANCE


@pytest.mark.parametrize("name", MIXERS)
def test_a_recorded_step_trains_as_the_eager_one_does(name: str) -> None:
    problem = OfMixer(**dataclasses.asdict(SMALL), mixer=name)
    graph, eager = (problem.trainer(CUDA, Engine(mode=mode, attention="math")) for mode in ("graph", "eager"))
    assert torch.allclose(losses(graph), losses(eager), rtol=1e-4)
    assert graph.stepper.failure is None
