"""A fixed offset profile in the scores, against adding it by hand."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall, TransformerConfig, make_model
from attnprobe.models.stacking import stack
from attnprobe.objectives import Classification, MaskedReconstruction, Objective
from attnprobe.probes.interventions.profiles import offset_profile
from attnprobe.tasks import Spec, Split

DONOR = Path("donor.pt")  # never opened where a model is made by hand

CASES = {
    "line": ({}, None, False),
    "padded": ({}, None, True),
    "causal": ({"causal": True}, None, True),
    "grid": ({"positions": "learned"}, (3, 5), False),
    "class token": ({"readout": "token", "positions": "rotary"}, None, True),
    "dropout": ({"attention_dropout": 0.3}, None, True),
}


def make_pair(name: str, n: int = 7):
    """A model with a random profile, the same model without, what by hand does the same, and data, in float64."""
    config, grid, padded = CASES[name]
    length = 13 if grid is None else grid[0] * grid[1]
    settings = {"d_model": 12, "layers": 2, "heads": 3, "d_mlp": 7} | config
    spec = Spec(length=length, classes=3, grid=grid)
    plain = make_model(TransformerConfig(**settings), spec, "values", seed=1).double()
    model = make_model(TransformerConfig(**settings, score_profile=DONOR), spec, "values", seed=1).double()
    generator = torch.Generator().manual_seed(2)
    profile = torch.randn(model.score_profile.values.shape, generator=generator, dtype=torch.float64)
    model.score_profile.set(profile)
    inputs = torch.randn(n, length, 1, generator=generator, dtype=torch.float64)
    lengths = torch.randint(4, length + 1, (n,), generator=generator) if padded else None
    split = Split(inputs=inputs, labels=torch.arange(n) % 3, lengths=lengths)
    return model, plain, by_hand(profile, grid, length, leading=int(config.get("readout") == "token")), split


def by_hand(profile: Tensor, grid, length: int, leading: int) -> dict[int, Tensor]:
    """Entry by entry: layer -> (1, head, size, size)."""
    size = leading + length
    added = torch.zeros(*profile.shape[:2], size, size, dtype=torch.float64)
    for i in range(length):
        for j in range(length):
            if grid is None:
                value = profile[:, :, j - i + length - 1]
            else:
                (y, x), (ky, kx) = divmod(i, grid[1]), divmod(j, grid[1])
                value = profile[:, :, ky - y + grid[0] - 1, kx - x + grid[1] - 1]
            added[:, :, leading + i, leading + j] = value
    return {layer: matrix[None] for layer, matrix in enumerate(added)}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradient_are_those_of_the_scores_plus_the_profile(name: str) -> None:
    model, plain, added, split = make_pair(name)
    batch = split.batch(torch.arange(7))
    outputs = [
        each(batch.inputs, valid=batch.valid, **more) for each, more in ((model, {}), (plain, {"score_offsets": added}))
    ]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(outputs[0], plain(batch.inputs, valid=batch.valid), rtol=1e-3)
    for output in outputs:
        output.square().sum().backward()
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    assert gradients.keys() == dict(model.named_parameters()).keys()  # nothing new to train
    for parameter, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, gradients[parameter], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["line", "padded", "grid", "class token"])
def test_chosen_positions_and_shorter_batches_see_the_same_profile(name: str) -> None:
    model, plain, added, split = make_pair(name)
    batch = split.batch(torch.arange(7))
    at = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(i))[:3] for i in range(7)])
    whole = plain(batch.inputs, valid=batch.valid, score_offsets=added, at=at)
    torch.testing.assert_close(model(batch.inputs, valid=batch.valid, at=at), whole, rtol=1e-12, atol=1e-12)
    if CASES[name][1] is None:
        short, valid = batch.inputs[:, :5], None if batch.valid is None else batch.valid[:, :5]
        size = 5 + int(name == "class token")
        cut = {layer: matrix[..., :size, :size] for layer, matrix in added.items()}
        wanted = plain(short, valid=valid, score_offsets=cut)
        torch.testing.assert_close(model(short, valid=valid), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["line", "causal", "grid", "class token"])
def test_calls_show_the_scores_that_the_softmax_sees(name: str) -> None:
    model, plain, added, split = make_pair(name)
    batch, calls, without = split.batch(torch.arange(7)), list[AttentionCall](), list[AttentionCall]()
    with torch.no_grad():
        model(batch.inputs, valid=batch.valid, observe=calls.append)
        plain(batch.inputs, valid=batch.valid, observe=without.append)
    torch.testing.assert_close(calls[0].scores(), without[0].scores() + added[0], rtol=1e-12, atol=1e-12)
    for call in calls:
        torch.testing.assert_close(call.pattern() @ call.v, call.output, rtol=1e-12, atol=1e-12)
        q, k = call.channels()
        torch.testing.assert_close(q @ k.mT * call.scale, call.scores(), rtol=1e-11, atol=1e-11)


def test_a_profile_in_the_scores_is_in_their_own_profile() -> None:
    """That of the same model without it, plus what is left of the added one once rows are centred."""
    model, plain, added, split = make_pair("line")
    found, own = (offset_profile(ours.of(each, split), np.arange(7))[0] for each in (model, plain))
    matrix = added[0][0] - added[0][0].mean(-1, keepdim=True)
    rest = torch.stack([matrix.diagonal(o, -2, -1).mean(-1) for o in range(-12, 13)], -1)
    torch.testing.assert_close(found, own + rest, rtol=1e-11, atol=1e-11)


def test_five_steps_are_those_of_adding_it_by_hand() -> None:
    model, plain, added, split = make_pair("padded")
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-2) for each in (model, plain)]
    before = copy.deepcopy(model.state_dict())
    for step in range(5):
        batch = split.batch(torch.tensor([step, step + 1, step + 2]))
        for each, optimizer, more in zip((model, plain), optimizers, ({}, {"score_offsets": added}), strict=True):
            logits = each.classify(each(batch.inputs, valid=batch.valid, **more), batch.valid)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step()
    other = dict(plain.named_parameters())
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, other[name], rtol=1e-9, atol=1e-9)
    assert torch.equal(model.score_profile.values, before["score_profile.values"])
    assert not torch.equal(model.blocks[0].attention.q.weight, before["blocks.0.attention.q.weight"])


def test_stacked_models_have_one_profile_and_refuse_two() -> None:
    models = [make_pair("padded")[0] for _ in range(3)]
    for number, model in enumerate(models):
        with torch.no_grad():
            model.blocks[0].attention.q.weight.mul_(1 + number)
    batch = make_pair("padded")[3].batch(torch.arange(6))
    alone = torch.cat([m(batch.inputs[2 * i : 2 * i + 2], valid=batch.valid[2 * i : 2 * i + 2])
                       for i, m in enumerate(copy.deepcopy(models))])  # fmt: skip
    torch.testing.assert_close(stack(models)(batch.inputs, valid=batch.valid), alone, rtol=1e-10, atol=1e-10)
    assert models[1].state_dict()["score_profile.values"].shape == models[1].score_profile.values.shape
    models = [make_pair("padded")[0] for _ in range(2)]
    models[1].score_profile.set(2 * models[1].score_profile.values)
    with pytest.raises(NotApplicableError, match="score profiles that differ"):
        stack(models)


@pytest.mark.parametrize("name", ["padded", "dropout"])
@pytest.mark.parametrize("objective", [Classification(), MaskedReconstruction()])
def test_objectives_reach_the_profile(name: str, objective: Objective) -> None:
    """Whatever shortcuts an objective takes (chosen positions only, for instance)."""
    model, plain, added, split = make_pair(name)
    batch = split.batch(torch.arange(7))
    found = objective.losses(model, batch, seed=3, epoch=1, training=True).loss
    plain.register_forward_pre_hook(lambda m, args, kw: (args, kw | {"score_offsets": added}), with_kwargs=True)
    wanted = objective.losses(plain, batch, seed=3, epoch=1, training=True).loss
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
