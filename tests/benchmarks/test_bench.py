"""The benchmark's own honesty: equal losses pass the gate, other losses void the times."""

import pytest
import torch

from attnprobe.bench.fresh import measure
from attnprobe.bench.peers import make_ours, make_plain, with_our_weights
from attnprobe.bench.problem import Problem
from attnprobe.bench.report import markdown, surroundings
from attnprobe.bench.rounds import GateError, compare, spread
from attnprobe.masking import bernoulli_mask
from attnprobe.run import Engine

CPU = torch.device("cpu")
PLAIN = "nn.TransformerEncoder + DataLoader"
MAKERS = {"ours": make_ours, "ours again": make_ours, PLAIN: make_plain}


@pytest.mark.parametrize("loss", ["masked", "label"])
def test_the_reference_with_our_weights_is_our_model_in_float64(loss: str) -> None:
    problem = Problem(length=11, batch=3, d_model=12, heads=3, d_mlp=17, layers=2, loss=loss)
    theirs, ours, split = with_our_weights(problem).double(), problem.model().double(), problem.split()
    trainer = problem.trainer(CPU, Engine())
    index = torch.tensor([4, 0, 7])
    wanted = trainer.phase.objective.losses(ours, split.batch(index), seed=problem.seed, epoch=2).mean()
    target = (split.inputs[index].double() - 127.5) / 73.9
    hidden = bernoulli_mask(problem.ratio, seed=problem.seed, sample=index, epoch=2, length=11)
    hidden = hidden if loss == "masked" else torch.zeros_like(hidden)
    got = theirs(target * 73.9 + 127.5, split.labels[index], hidden)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)  # positions and grey levels pass through float32


@pytest.mark.parametrize("loss", ["masked", "label"])
def test_gate_rounds_and_report(loss: str) -> None:
    problem = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1, loss=loss)
    outcome = compare(problem, MAKERS, device=CPU, precision="float32", rounds=3, seconds=0.01)
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == list(MAKERS)
    assert rows["ours"].ratio is None
    assert rows[PLAIN].loss_difference is not None
    assert rows[PLAIN].loss_difference < 1e-5
    assert all(row.tokens_per_second.low > 0 for row in outcome.rows)
    page = markdown(surroundings(CPU), "attnprobe bench", [outcome], {})
    assert f"| {PLAIN} |" in page
    assert torch.__version__ in page


def test_another_computation_does_not_pass_the_gate(monkeypatch) -> None:
    def other(problem: Problem, device: torch.device, precision: str):
        peer = make_plain(problem, device, precision)
        peer.optimizer.param_groups[0]["lr"] *= 1.1
        return peer

    problem = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)
    with pytest.raises(GateError, match="differ by"):
        compare(problem, MAKERS | {PLAIN: other}, device=CPU, precision="float32", rounds=1, seconds=0.01)


def test_a_peer_that_fails_is_named_not_hidden() -> None:
    def broken(problem: Problem, device: torch.device, precision: str):
        raise TypeError("unexpected keyword")

    problem = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)
    outcome = compare(problem, MAKERS | {"x": broken}, device=CPU, precision="float32", rounds=1, seconds=0.01)
    assert outcome.failed == {"x": "TypeError: unexpected keyword"}
    assert "Not measured: x" in markdown(surroundings(CPU), "", [outcome], {})


def test_spread() -> None:
    assert vars(spread([3.0, 1.0, 2.0])) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_a_fresh_process_reports_its_own_memory_and_not_its_parents() -> None:
    ballast = torch.ones(200_000_000)  # 800 MB here, none of it in the new process
    problem = Problem(length=13, batch=4, d_model=8, heads=2, d_mlp=11, layers=1)
    found = measure("ours", problem, CPU, "float32")
    assert 0 < found.first_step_seconds < 120
    assert found.peak_megabytes < ballast.nbytes / 1e6
