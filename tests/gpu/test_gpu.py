"""What only a GPU can show: its kernels, precisions, graphs, and that a deterministic run repeats its bits."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from attnprobe import presets, run
from attnprobe.bench.gpu_rows import SHORT, differences
from attnprobe.bench.problem import Problem
from attnprobe.cli.app import main
from attnprobe.config import override
from attnprobe.objectives import MaskedReconstruction
from attnprobe.run import Engine
from attnprobe.training.ensembles.ensemble import Ensemble
from attnprobe.training.evaluation import evaluate
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted, Trainer, Update
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.updates.attention_check import TOLERANCE
from attnprobe.training.updates.attention_kernels import Shape, choose_attention
from tests.training.conftest import Silent

CUDA = torch.device("cuda")
SMALL = Problem(length=96, batch=8, d_model=32, heads=2, d_mlp=64)
SETTINGS = [
    "task.side=8", "task.n_train=320", "task.n_validation=160", "task.n_test=160", "model.d_model=32", "model.heads=2",
    "pretrain.epochs=2", "finetune.epochs=2", "pretrain.batch_size=20", "finetune.batch_size=20",
]  # fmt: skip


def config_of(*changes: str) -> run.RunConfig:
    return run.from_table(override(presets.read_table("textures"), [*SETTINGS, *changes]))


def train(trainer: Trainer, steps: int) -> torch.Tensor:
    """(steps,) losses."""
    losses = []
    for step in range(steps):
        epoch, position = divmod(step, trainer.steps_per_epoch)
        loss, count, _ = trainer.update(trainer.batches(epoch)[position], epoch)
        trainer.progress.step += 1
        losses.append(loss / count)
    return torch.stack(losses).double().cpu()


def test_the_graph_computes_what_the_eager_engine_computes() -> None:
    """The check that must pass before "auto" may choose the graph."""
    losses, parameters = differences(SHORT, CUDA, Engine(attention="math"), "graph")
    assert losses < 1e-5
    assert parameters < 1e-4


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_graph_is_captured_on_another_device_than_the_current_one() -> None:
    assert torch.cuda.current_device() == 0
    graph = SMALL.trainer(torch.device("cuda:1"), Engine(mode="graph", attention="math"))
    eager = SMALL.trainer(torch.device("cuda:1"), Engine(attention="math"))
    assert torch.allclose(train(graph, 12), train(eager, 12), rtol=1e-5)
    assert graph.stepper.failure is None
    assert torch.cuda.current_device() == 0


def test_training_goes_on_eagerly_after_a_capture_that_fails(monkeypatch) -> None:
    """What a capture refuses: a value that is read from the device in the middle of an update."""
    eager, graph = (SMALL.trainer(CUDA, Engine(mode=mode, attention="math")) for mode in ("eager", "graph"))
    losses = graph.stepper.losses

    def reads(batch, epoch):
        found = losses(batch, epoch)
        found.loss.sum().item()
        return found

    monkeypatch.setattr(graph.stepper, "losses", reads)
    assert torch.allclose(train(graph, 12), train(eager, 12), rtol=1e-5)
    assert graph.stepper.failure is not None
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    later = SMALL.trainer(CUDA, Engine(mode="graph", attention="math"))  # nothing is poisoned
    assert torch.allclose(train(later, 12), train(SMALL.trainer(CUDA, Engine(attention="math")), 12), rtol=1e-5)
    assert later.stepper.failure is None


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_chosen_kernel_passed_its_check(precision, masked: bool) -> None:
    shape = Shape(sequences=8, heads=4, length=704, d_head=32, precision=precision, masked=masked, causal=False)
    choice = choose_attention(Engine(precision=precision), shape, CUDA)
    print(precision, masked, choice)
    assert choice.kernel in ("cudnn", "flash", "efficient")
    assert choice.deviations[choice.kernel] <= TOLERANCE[precision]
    assert not (masked and choice.kernel == "cudnn")


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 1e-2), ("bfloat16", 3e-2)])
def test_rounded_products_train_nearly_as_whole_ones_do(precision, tolerance: float) -> None:
    whole, rounded = (train(SMALL.trainer(CUDA, Engine(precision=p)), 30) for p in ("float32", precision))
    assert (rounded - whole).abs().max() < tolerance * whole.mean()
    assert not torch.equal(rounded, whole)
    assert torch.get_float32_matmul_precision() == "highest"  # the process is left as it was


def test_evaluation_by_tokens_gives_the_same_numbers() -> None:
    trainer = SMALL.trainer(CUDA, Engine())
    split, objective = trainer.data.validation, MaskedReconstruction()
    few = dataclasses.replace(trainer.engine, evaluation_tokens=3 * SMALL.length)
    one, two = (evaluate(trainer.model, split, objective, engine, seed=0) for engine in (trainer.engine, few))
    assert two == pytest.approx(one, rel=1e-5)


def test_a_member_of_an_ensemble_equals_its_own_run() -> None:
    engine = Engine(attention="math")
    seeds = [dataclasses.replace(SMALL, seed=seed) for seed in (0, 1, 2)]
    alone = torch.stack([train(problem.trainer(CUDA, engine), 20) for problem in seeds])
    members = [problem.trainer(CUDA, engine) for problem in seeds]
    ensemble, losses = Ensemble(members), []
    for step in range(20):
        epoch, position = divmod(step, members[0].steps_per_epoch)
        found = ensemble.update([Update(trainer=t, batch=t.batches(epoch)[position], epoch=epoch) for t in members])
        losses.append(found[:, 0] / found[:, 1])
        for trainer in members:
            trainer.progress.step += 1
    assert torch.allclose(torch.stack(losses, 1).double().cpu(), alone, rtol=1e-4)


def test_a_deterministic_run_repeats_its_bits_through_an_interruption(tmp_path: Path) -> None:
    config, asked = config_of("engine.deterministic=true", "engine.precision=bfloat16"), []

    def stop() -> bool:
        asked.append(True)
        return len(asked) == 20

    execute(config, tmp_path / "through", device=CUDA, monitor=Silent())
    with contextlib.suppress(Interrupted):
        execute(config, tmp_path / "stopped", device=CUDA, monitor=Silent(), should_stop=stop)
    assert (tmp_path / "stopped" / "resume.pt").exists()
    execute(config, tmp_path / "stopped", device=CUDA, monitor=Silent(), resume=True)
    for name in ("pretrained", "finetuned"):
        one, two = (load_checkpoint(tmp_path / r / "checkpoints" / f"{name}.pt").state for r in ("through", "stopped"))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    manifest = json.loads((tmp_path / "through" / "manifest.json").read_text())
    assert manifest["deterministic"] is True
    assert manifest["attention"]["pretrained"] in ("flash", "math")


def test_too_little_memory_is_one_line(tmp_path: Path, capfd) -> None:
    torch.cuda.set_per_process_memory_fraction(0.005)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["train", "--device", "cuda", "--out", str(tmp_path / "run"), "-s", "model.d_model=8192"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    error = capfd.readouterr().err
    assert ended.value.code == 1
    assert "memory" in error
    assert "Traceback" not in error
