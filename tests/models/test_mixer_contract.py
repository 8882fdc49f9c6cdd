"""What every mixer promises, whichever it is; the foreign one stands for those to come."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnprobe.config import build, dump
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.mixers import MIXERS
from attnprobe.models.parameter_sets import known_sets, sets_of
from attnprobe.models.stacking import stack
from attnprobe.objectives import OBJECTIVES, Objective
from attnprobe.run import Optimizer
from attnprobe.tasks import Batch, Spec
from attnprobe.training.updates.optim import make_optimizer
from tests.models.initial_loss import excess, expected

pytestmark = [
    pytest.mark.usefixtures("foreign"),
    pytest.mark.parametrize("name", [*MIXERS, "recurrence"]),
]

LENGTH, BATCH = 11, 5
SPEC = Spec(length=LENGTH, classes=3, channels=2)
SEVERAL_BLOCKS = {  # of these few positions
    "block_local": {"window": 3}, "longformer": {"window": 2}, "bigbird": {"block": 2, "random": 1},
    "reformer": {"chunk": 2, "buckets": 4}, "linformer": {"rank": 5}, "performer": {"features": 8},
    "mega": {"states": 3, "d_shared": 5, "d_value": 4, "chunk": 4}, "spade": {"states": 4, "window": 3},
}  # fmt: skip


def config(name: str, **settings) -> TransformerConfig:
    mixer = {"name": name, **SEVERAL_BLOCKS.get(name, {})}
    table = {"d_model": 6, "heads": 2, "layers": 2, "d_mlp": 7, "mixer": mixer, **settings}
    return build(TransformerConfig, table)


def make(name: str, seed: int = 3, **settings) -> Transformer:
    return make_model(config(name, **settings), SPEC, "values", seed=seed).double()


def inputs() -> torch.Tensor:
    return torch.randn(BATCH, LENGTH, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def padded() -> torch.Tensor:
    return torch.arange(LENGTH) < torch.tensor([11, 4, 7, 1, 5])[:, None]


def causal(name: str) -> list[bool]:
    return [False, True] if "causal" in MIXERS[name].layer.obeys else [False]


def test_settings_survive_the_way_to_a_file_and_back(name: str) -> None:
    made = config(name)
    assert dump(made)["mixer"]["name"] == name
    assert build(TransformerConfig, dump(made)) == made


def test_parameters_belong_to_seed_and_name_alone(name: str) -> None:
    torch.manual_seed(1)
    one = make(name).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(tensor, one[key]) for key, tensor in make(name).state_dict().items())
    shared = make(name, layers=3).state_dict()
    assert all(torch.equal(tensor, shared[key]) for key, tensor in one.items())


def test_declared_sets_hold_parameters_of_the_mixer_alone(name: str) -> None:
    model = make(name)
    sets = sets_of(model)
    assert MIXERS[name].layer.parameter_sets.keys() <= sets.keys() <= known_sets()
    for declared in MIXERS[name].layer.parameter_sets:
        assert all(key.split(".")[2] == name for key in sets[declared])


def test_padding_is_never_looked_at(name: str) -> None:
    for chosen in causal(name):
        model, x, valid = make(name, causal=chosen), inputs(), padded()
        other = torch.where(valid[..., None], x, x.flip(0) + 3)
        difference = (model(x, valid=valid) - model(other, valid=valid)).abs().amax(-1)
        assert (difference * valid).max() < 1e-12
        for b, n in enumerate(valid.sum(1).tolist()):
            assert (model(x[b : b + 1, :n]) - model(x, valid=valid)[b, :n]).abs().max() < 1e-12


def test_a_sequence_of_padding_alone_spoils_no_other(name: str) -> None:
    model, valid = make(name), padded() & (torch.arange(BATCH) < BATCH - 1)[:, None]
    features = model(inputs(), valid=valid)
    features[valid].square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_causal_model_sees_nothing_that_follows(name: str) -> None:
    if True not in causal(name):
        with pytest.raises(ConfigError, match="causal is impossible"):
            config(name, causal=True)
        return
    model, x = make(name, causal=True), inputs()
    changed = x.clone()
    changed[:, 6:] += 2
    difference = (model(x) - model(changed)).abs().amax((0, 2))
    assert difference[:6].max() < 1e-12  # an FFT mixes all of a sequence, up to rounding
    assert difference[6:].min() > 1e-6
    assert ((make(name)(x) - make(name)(changed)).abs().amax((0, 2)) > 1e-9).all()  # else nothing is mixed


def test_only_some_positions_are_those_of_the_whole(name: str) -> None:
    model, x, at = make(name), inputs(), torch.tensor([[3, 0, 10]]).expand(BATCH, 3)
    whole = model(x, valid=padded())
    assert (model(x, valid=padded(), at=at) - whole[:, [3, 0, 10]]).abs().max() < 1e-12


def test_its_memory_can_be_counted_before_it_is_there(name: str) -> None:
    """As --dry-run does, on tensors that have shapes and no values."""
    with torch.device("meta"):
        model = Transformer(config(name), SPEC, "values")
    features = model(torch.empty(BATCH, LENGTH, 2, device="meta"), valid=padded().to("meta"))
    assert features.shape == (BATCH, LENGTH, 6)
    assert features.device.type == "meta"


def test_scores_are_there_or_refused(name: str) -> None:
    model, seen = make(name), []
    if model.has_scores:
        model(inputs(), observe=seen.append)
        assert [call.layer for call in seen] == [0, 1]
        return
    with pytest.raises(NotApplicableError, match=f"mixer '{name}' has no attention scores"):
        model(inputs(), observe=seen.append)


def test_an_ensemble_is_its_members_or_is_refused(name: str) -> None:
    models = [make(name, seed) for seed in (3, 4, 5)]
    x, valid = torch.cat([inputs() + n for n in range(3)]), padded().repeat(3, 1)
    alone = [m(part, valid=v) for m, part, v in zip(models, x.chunk(3), valid.chunk(3), strict=True)]
    gradients = [torch.autograd.grad(out.square().sum(), list(m.blocks.parameters()))
                 for m, out in zip(models, alone, strict=True)]  # fmt: skip
    if not MIXERS[name].layer.can_be_stacked():
        with pytest.raises(NotApplicableError, match=f"blocks.0.{name}"):
            stack(models)
        return
    whole = stack(models)
    together = whole(x, valid=valid)
    assert (together - torch.cat(alone)).abs().max() < 1e-12
    for got, *wanted in zip(
        torch.autograd.grad(together.square().sum(), list(whole.blocks.parameters())), *gradients, strict=True
    ):
        assert (got - torch.stack(wanted)).abs().max() < 1e-10


def taught(name: str, objective: str, **settings: int) -> tuple[Transformer, Callable[[], torch.Tensor]] | None:
    """A model, and its loss on five padded sequences; None if the model is refused: it cannot be causal."""
    chosen: Objective = OBJECTIVES[objective]()
    spec = dataclasses.replace(SPEC, regression=True, classes=1) if objective == "regression" else SPEC
    wants_causal = objective in ("causal", "denoising")
    made = config(name, causal=wants_causal and True in causal(name), **settings)
    if wants_causal and not made.causal:
        with pytest.raises(ConfigError, match="causal"):
            chosen.check(made, spec)
        return None
    chosen.check(made, spec)
    model = make_model(made, spec, "values", seed=0)
    labels = torch.linspace(-1, 1, BATCH) if spec.regression else torch.arange(BATCH) % 3
    batch = Batch(inputs=inputs().float(), labels=labels, sample=torch.arange(BATCH), valid=padded())
    return model, lambda: chosen.losses(model, batch, seed=0, epoch=0, training=True).mean()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_teaches_the_mixer(name: str, objective: str) -> None:
    """With padded sequences, a step of the optimizer moves every parameter of the mixer, or the model is refused."""
    if (found := taught(name, objective)) is None:
        return
    model, losses = found
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = make_optimizer(Optimizer(), model)
    loss = losses()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for key, value in model.named_parameters():
        moved = not torch.equal(value, before[key])
        assert moved or f".{name}." not in key, key


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_overfits_a_batch(name: str, objective: str) -> None:
    if (found := taught(name, objective, d_model=12, d_mlp=24)) is None:
        return
    model, losses = found
    optimizer = make_optimizer(Optimizer(lr=1e-2), model)
    start = losses().item()
    for _ in range(120):
        optimizer.zero_grad()
        loss = losses()
        loss.backward()
        optimizer.step()
    assert losses().item() < (0.05 if objective in ("classification", "regression") else 0.35) * start


def test_at_the_start_the_loss_is_log_classes_and_what_the_published_head_adds(name: str) -> None:
    """Over draws of the head; ``expected`` says how much that is: at most (1 + 1 / d_model) (1 - 1 / classes) / 6 for
    features of mean square 1, as a layer norm leaves them.
    """
    batch = Batch(inputs=inputs().float(), labels=torch.arange(BATCH) % 3, sample=torch.arange(BATCH), valid=padded())
    starts = [make_model(config(name), SPEC, "values", seed=seed) for seed in range(40)]
    found, wanted = (np.array([of(model, batch) for model in starts]) for of in (excess, expected))
    assert 0.02 < wanted.mean() < (1 + 1 / 6) * (1 - 1 / 3) / 6
    gap = found - wanted
    assert abs(gap.mean()) < 4 * gap.std(ddof=1) / math.sqrt(len(gap)) < 0.12
