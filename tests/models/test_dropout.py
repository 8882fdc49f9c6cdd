"""Dropout: rates and scaling, and that nothing but its counters decides what is dropped."""

import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.dropout import Dropout
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction, Objective
from attnprobe.tasks import Batch, Spec

LENGTH, BATCH = 11, 5
TOKENS = Spec(length=LENGTH, classes=3, vocabulary=7)
RATES = ({"dropout": 0.3}, {"attention_dropout": 0.3}, {"embedding_dropout": 0.3})


def make_batch(padded: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(1, 7, (BATCH, LENGTH), generator=generator)
    lengths = torch.tensor([11, 7, 4, 1, 9])
    valid = torch.arange(LENGTH) < lengths[:, None] if padded else None
    return Batch(inputs=inputs, labels=torch.tensor([0, 1, 2, 0, 1]), sample=torch.tensor([3, 0, 8, 5, 1]), valid=valid)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rate_and_scaling(rate: float) -> None:
    """The share dropped within five standard errors; what is kept is divided by the share kept; the mean stays."""
    counters = Dropout(seed=1, epoch=2, sample=torch.arange(101))
    for dropped in (
        counters.features(torch.ones(101, 53, 17, dtype=torch.float64), rate, site=4),
        counters.pattern(torch.ones(101, 3, 17, 19, dtype=torch.float64), rate, site=4),
    ):
        share = (dropped == 0).double().mean().item()
        assert abs(share - rate) < 5 * (rate * (1 - rate) / dropped.numel()) ** 0.5
        assert dropped[dropped != 0].unique().tolist() == [1 / (1 - rate)]


def test_features_are_those_of_torch_with_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place where dropout acts, against the encoder written out with torch's own functions."""
    config = TransformerConfig(d_model=8, heads=2, d_mlp=13, dropout=0.2, attention_dropout=0.3, embedding_dropout=0.4)
    model = make_model(config, TOKENS, "classes", seed=0).double()
    batch, counters = make_batch(), Dropout(seed=1, epoch=2, sample=make_batch().sample)
    got = model(batch.inputs, dropout=counters)
    block = model.blocks[0]
    x = counters.features(model.positions(model.embedding(batch.inputs, None)), 0.4, 0)
    h = block.norm1(x)
    q, k, v = (getattr(block.attention, n)(h).unflatten(-1, (2, -1)).transpose(1, 2) for n in "qkv")
    weights = counters.pattern((q @ k.mT / 2).softmax(-1), 0.3, 1)
    x = x + counters.features(block.attention.o((weights @ v).transpose(1, 2).flatten(2)), 0.2, 2)
    added = block.down(torch.nn.functional.gelu(block.up(block.norm2(x))))
    wanted = model.norm(x + counters.features(added, 0.2, 3))
    assert (got - wanted).abs().max() < 1e-13


@pytest.mark.parametrize("rates", RATES, ids=lambda r: next(iter(r)))
@pytest.mark.parametrize("settings", [{}, {"positions": "rotary", "layers": 2}, {"readout": "token"}], ids=str)
@pytest.mark.parametrize(
    "objective", [Classification(), MaskedReconstruction(loss="cross_entropy")], ids=["cls", "mlm"]
)
def test_batching_and_padding_do_not_change_what_is_dropped(objective: Objective, settings: dict, rates: dict) -> None:
    """A sequence alone, cut to its real length, has the loss that it has in a padded batch of others."""
    model = make_model(TransformerConfig(d_model=8, heads=2, **settings, **rates), TOKENS, "classes", seed=0).double()
    batch = make_batch(padded=True)
    together = objective.losses(model, batch, seed=1, epoch=2, training=True).loss
    assert batch.valid is not None
    for row in range(BATCH):
        n = int(batch.valid[row].sum())
        one = slice(row, row + 1)
        short = Batch(inputs=batch.inputs[one, :n], labels=batch.labels[one], sample=batch.sample[one])
        alone = objective.losses(model, short, seed=1, epoch=2, training=True).loss
        assert (alone - together[row]).abs().item() < 1e-9  # positions are kept in float32


@pytest.mark.parametrize("rates", RATES, ids=lambda r: next(iter(r)))
def test_off_in_evaluation_and_other_in_other_epochs(rates: dict) -> None:
    plain = make_model(TransformerConfig(d_model=8, heads=2, causal=True), TOKENS, "classes", seed=0)
    model = make_model(TransformerConfig(d_model=8, heads=2, causal=True, **rates), TOKENS, "classes", seed=0)
    for objective in (Classification(), CausalPrediction(loss="cross_entropy")):
        wanted = objective.losses(plain, make_batch(), seed=1, epoch=2).loss
        assert torch.equal(objective.losses(model, make_batch(), seed=1, epoch=2).loss, wanted)
        first, second = (objective.losses(model, make_batch(), seed=1, epoch=e, training=True).loss for e in (2, 3))
        assert not torch.equal(first, wanted)
        assert not torch.equal(first, second)


def test_rates_must_be_shares() -> None:
    with pytest.raises(ConfigError, match="attention_dropout must be a share below 1"):
        TransformerConfig(attention_dropout=1.0)
