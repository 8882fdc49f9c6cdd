"""How much work one training step is, counted instead of timed, so that a busy machine cannot fail it."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnprobe.bench.problem import Problem
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction, Objective
from attnprobe.run import Engine
from attnprobe.tasks import Spec, Split

CPU, META = torch.device("cpu"), torch.device("meta")
VIEWS = {"view", "t", "transpose", "detach", "unsqueeze", "expand", "_unsafe_view", "as_strided", "slice", "alias"}
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2"}
COUNTED = 166  # operators that do work, in one step of PROBLEM
PROBLEM = Problem(length=101, batch=7, d_model=24, heads=3, d_mlp=41, layers=2)


class Counter(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        self.calls[name] = self.calls.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def counted_step(problem: Problem) -> dict[str, int]:
    """Operators of the second step: the first one also creates the optimizer's state."""
    trainer = problem.trainer(CPU, Engine())
    batches = trainer.batches(0)
    trainer.update(batches[0], 0)
    batch = batches[1]
    with Counter() as counter:
        trainer.update(batch, 0)
    return counter.calls


def test_operators_per_step() -> None:
    """An upper bound with a tenth to spare over what was counted; whoever needs more should know why."""
    calls = counted_step(PROBLEM)
    working = sum(n for name, n in calls.items() if name not in VIEWS)
    assert working <= 1.1 * COUNTED, calls
    assert calls["_scaled_dot_product_flash_attention_for_cpu"] == PROBLEM.layers
    assert calls["_scaled_dot_product_flash_attention_for_cpu_backward"] == PROBLEM.layers
    assert calls["addmm"] == 6 * PROBLEM.layers + 2  # six projections a layer, embedding, head
    assert calls["_fused_adamw_"] == 2  # decayed and not


def test_nothing_waits_for_the_device() -> None:
    """Reading a number would make a GPU's queue run dry. On the CPU one is read: how many positions are hidden."""
    for problem, allowed in ((PROBLEM, 1), (dataclasses.replace(PROBLEM, loss="label"), 0)):
        calls = counted_step(problem)
        assert sum(calls.get(name, 0) for name in WAITING) == allowed


OBJECTIVES = [Classification(), MaskedReconstruction(loss="cross_entropy"), CausalPrediction(loss="cross_entropy")]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("readout", ["mean", "max", "last"])
@pytest.mark.parametrize("pairs", [False, True])
def test_no_value_is_read_on_another_device(objective: Objective, readout: str, pairs: bool) -> None:
    """Tensors of the device "meta" have no values: whoever asks for one, as a host sync does, fails."""
    spec = Spec(length=13, classes=3, vocabulary=11, pairs=pairs)
    causal = isinstance(objective, CausalPrediction)
    config = TransformerConfig(d_model=12, heads=2, readout=readout, positions="rotary", causal=causal)
    model = make_model(config, spec, "classes", seed=0).to(META)
    shape = (20, 2) if pairs else (20,)
    inputs = torch.zeros(*shape, 13, dtype=torch.uint8)
    split = Split(inputs=inputs, labels=torch.zeros(20).long(), lengths=torch.full(shape, 7)).to(META)
    epoch = torch.zeros((), dtype=torch.int64, device=META)
    losses = objective.losses(model, split.batch(torch.arange(5, device=META)), seed=0, epoch=epoch)
    (losses.loss.sum() / losses.count.sum().clamp(min=1)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    sums = torch.stack(losses.sums())
    assert sums.device == META
    with pytest.raises(NotImplementedError):
        sums.tolist()


def saved_bytes(problem: Problem) -> int:
    """What the forward pass keeps for the backward pass, every storage once, parameters left out."""
    trainer = problem.trainer(CPU, Engine())
    parameters = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = trainer.phase.objective.losses(trainer.model, trainer.batches(0)[0], seed=0, epoch=0)
    assert losses.loss.requires_grad
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in parameters)


def test_saved_activations_grow_with_length_and_not_with_its_square() -> None:
    sizes = [saved_bytes(dataclasses.replace(PROBLEM, length=length, loss="label")) for length in (101, 202, 404)]
    assert sizes[1] / sizes[0] < 2.02
    assert sizes[2] / sizes[1] < 2.02


def test_saved_activations_per_token() -> None:
    """Per token and layer in numbers: two norms' inputs and outputs, q, k, v, the mix, and the MLP before and after."""
    problem = dataclasses.replace(PROBLEM, loss="label")
    per_layer = 8 * problem.d_model + 2 * problem.d_mlp + problem.heads + 4
    outside = 4 * problem.d_model + 8
    allowed = 4 * problem.tokens * (per_layer * problem.layers + outside)
    assert saved_bytes(problem) <= allowed
    assert saved_bytes(PROBLEM) < saved_bytes(problem)  # hidden positions only, in the last layer
