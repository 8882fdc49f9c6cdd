"""Computing the last block at the hidden positions only equals computing it everywhere."""

import pytest
import torch
from torch import Tensor

from attnprobe.models import AttentionCall, TransformerConfig, make_model
from attnprobe.objectives import Losses, MaskedReconstruction
from attnprobe.tasks import Batch, Spec

LENGTH, BATCH = 13, 5
VALUES = Spec(length=LENGTH, classes=3, channels=2, mean=(0.5, 1.0), std=(2.0, 0.25))
TOKENS = Spec(length=LENGTH, classes=3, vocabulary=11)


def make_batch(spec: Spec, padded: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    if spec.is_tokens:
        inputs = torch.randint(1, 11, (BATCH, LENGTH), generator=generator, dtype=torch.uint8)
    else:
        inputs = torch.randn(BATCH, LENGTH, 2, generator=generator, dtype=torch.float64)
    valid = torch.arange(LENGTH) < torch.tensor([13, 4, 7, 1, 13])[:, None] if padded else None
    return Batch(inputs=inputs, labels=torch.zeros(BATCH).long(), sample=torch.arange(BATCH), valid=valid)


def losses_and_gradients(everywhere: bool, spec: Spec, padded: bool, monkeypatch, **settings) -> tuple[Losses, list]:
    monkeypatch.undo()
    if everywhere:
        monkeypatch.setattr("attnprobe.objectives.hidden_positions", lambda hidden: None)
    target = "classes" if spec.is_tokens else "values"
    config = TransformerConfig(d_model=12, heads=2, d_mlp=17, **settings)
    model = make_model(config, spec, target, seed=1).double()
    objective = MaskedReconstruction(ratio=0.4, loss="cross_entropy" if spec.is_tokens else "l1")
    losses = objective.losses(model, make_batch(spec, padded), seed=3, epoch=2)
    losses.mean().backward()
    return losses, [(name, p.grad) for name, p in model.named_parameters()]


@pytest.mark.parametrize("spec", [VALUES, TOKENS], ids=["values", "tokens"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [{}, {"positions": "rotary"}, {"positions": "learned", "readout": "token"}, {"padding": "attended"}],
    ids=["plain", "rotary", "token", "attended"],
)
def test_losses_and_gradients_are_the_same(spec: Spec, padded: bool, layers: int, settings, monkeypatch) -> None:
    settings = settings | {"layers": layers}
    wanted, wanted_gradients = losses_and_gradients(True, spec, padded, monkeypatch, **settings)
    got, gradients = losses_and_gradients(False, spec, padded, monkeypatch, **settings)
    assert torch.allclose(got.loss, wanted.loss, rtol=0, atol=1e-12)
    assert torch.equal(got.count, wanted.count)
    if wanted.correct is not None:
        assert torch.equal(got.correct, wanted.correct)
    for (name, gradient), (_, expected) in zip(gradients, wanted_gradients, strict=True):
        assert (gradient is None) == (expected is None), name
        assert gradient is None or (gradient - expected).abs().max() < 1e-13, name


def test_fewer_queries_are_computed_but_observers_see_whole_layers() -> None:
    model = make_model(TransformerConfig(d_model=12, heads=2), VALUES, "values", seed=0).double()
    x = make_batch(VALUES, padded=False).inputs
    at = torch.tensor([[1, 5, 12], [0, 2, 3], [7, 6, 1], [4, 8, 9], [10, 11, 12]])
    widths: list[int] = []
    model.blocks[0].up.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    some = model(x, at=at)
    calls: list[AttentionCall] = []
    observed = model(x, at=at, observe=calls.append)
    zero = torch.zeros(1, 2, LENGTH, LENGTH, dtype=torch.float64)
    offset = model(x, at=at, score_offsets={0: zero})
    everywhere: Tensor = model(x)
    assert widths == [3, LENGTH, LENGTH, LENGTH]
    assert calls[0].q.shape[2] == LENGTH
    wanted = everywhere[torch.arange(BATCH)[:, None], at]
    for got in (some, observed, offset):
        assert (got - wanted).abs().max() < 1e-13


def test_nothing_hidden_is_no_special_case() -> None:
    """A ratio so small that no position is hidden: the loss is an exact zero, and so is the count."""
    model = make_model(TransformerConfig(d_model=12, heads=2), VALUES, "values", seed=0).double()
    losses = MaskedReconstruction(ratio=1e-9).losses(model, make_batch(VALUES, padded=False), seed=5, epoch=1)
    assert losses.loss.tolist() == losses.count.tolist() == [0.0] * BATCH
    losses.mean().backward()
