"""Hidden inputs for causal models, hidden spans, and features as logits, against plain numpy."""

import numpy as np
import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.masking import bernoulli_mask, span_mask
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import CausalDenoising, CausalPrediction, MaskedReconstruction
from tests.core.test_objectives import BATCH, LENGTH, LEVELS, TOKENS, VALUES, log_softmax, make_batch

CAUSAL = TransformerConfig(d_model=6, heads=3, d_mlp=11, causal=True, layers=2)


@pytest.mark.parametrize("padded", [False, True])
def test_denoising_predicts_hidden_inputs_at_their_own_place(padded: bool) -> None:
    model, batch = make_model(CAUSAL, VALUES, "values", seed=0).double(), make_batch(VALUES, padded)
    got = CausalDenoising(ratio=0.4, loss="l1").losses(model, batch, seed=5, epoch=3)
    hidden = bernoulli_mask(0.4, seed=5, sample=batch.sample, epoch=3, length=LENGTH, valid=batch.valid)
    target = (batch.inputs.numpy() - VALUES.mean) / VALUES.std
    for b in range(BATCH):
        wanted = 0.0
        for i in np.flatnonzero(hidden[b]):
            past = model(batch.inputs[b : b + 1, : i + 1], hidden=hidden[b : b + 1, : i + 1])  # nothing after it
            wanted += np.abs(model.reconstruct(past).detach().numpy()[0, i] - target[b, i]).mean()
        assert got.loss[b].item() == pytest.approx(wanted, abs=1e-6)  # the table of positions is float32
        assert got.count[b] == hidden[b].sum()


def test_denoising_sees_neither_its_target_nor_anything_later() -> None:
    """By gradients: the loss at one hidden position depends on visible earlier inputs and on nothing else."""
    model, batch = make_model(CAUSAL, VALUES, "values", seed=0).double(), make_batch(VALUES)
    inputs = batch.inputs.clone().requires_grad_()
    hidden = bernoulli_mask(0.5, seed=1, sample=batch.sample, epoch=0, length=LENGTH)
    prediction = model.reconstruct(model(inputs, hidden=hidden))
    for b, i in hidden.nonzero().tolist():
        (gradient,) = torch.autograd.grad(prediction[b, i].sum(), inputs, retain_graph=True)
        reached = gradient.abs().sum(-1) > 0
        assert reached[b].nonzero().flatten().tolist() == [j for j in range(i) if not hidden[b, j]]
        assert reached.sum() == reached[b].sum()


def test_objectives_and_models_must_fit() -> None:
    plain = TransformerConfig(d_model=6, heads=3)
    with pytest.raises(ConfigError, match="must be true for causal denoising"):
        CausalDenoising().check(plain, VALUES)
    with pytest.raises(ConfigError, match="must be false for masked") as caught:
        MaskedReconstruction().check(CAUSAL, VALUES)
    assert "denoising" in caught.value.hint
    for objective in (CausalDenoising(loss="cross_entropy"), CausalPrediction(loss="cross_entropy")):
        with pytest.raises(ConfigError, match="values are continuous"):
            objective.check(CAUSAL, VALUES)
        objective.check(CAUSAL, LEVELS)
    with pytest.raises(ConfigError, match="span is longer than the 50% of 7 positions"):
        MaskedReconstruction(span=4).check(plain, VALUES)
    with pytest.raises(ConfigError, match="span must be greater than zero"):
        MaskedReconstruction(span=0)


def test_spans_are_what_is_scored() -> None:
    model = make_model(TransformerConfig(d_model=6, heads=3), VALUES, "values", seed=0).double()
    batch = make_batch(VALUES, padded=True)
    got = MaskedReconstruction(ratio=0.5, span=2).losses(model, batch, seed=5, epoch=3)
    hidden = span_mask(0.5, 2, seed=5, sample=batch.sample, epoch=3, length=LENGTH, valid=batch.valid)
    assert got.count.tolist() == hidden.sum(1).tolist() == [2, 0, 2, 0, 2]  # of 7, 2, 5, 1 and 7 positions
    prediction = model.reconstruct(model(batch.inputs, hidden=hidden, valid=batch.valid)).detach().numpy()
    target = (batch.inputs.numpy() - VALUES.mean) / VALUES.std
    wanted = (np.abs(prediction - target).mean(-1) * hidden.numpy()).sum(1)
    assert np.allclose(got.loss.detach().numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("readout", ["mean", "token"])
def test_identity_head_takes_features_as_logits(readout: str) -> None:
    """17 features, 13 tokens: cross-entropy over all 17, as the published code has it."""
    config = TransformerConfig(d_model=17, heads=1, reconstruction_head="identity", readout=readout)
    model, batch = make_model(config, TOKENS, "classes", seed=0).double(), make_batch(TOKENS)
    got = MaskedReconstruction(ratio=0.5, loss="cross_entropy").losses(model, batch, seed=5, epoch=3)
    hidden = bernoulli_mask(0.5, seed=5, sample=batch.sample, epoch=3, length=LENGTH)
    features = model(batch.inputs, hidden=hidden).detach().numpy()[:, int(readout == "token") :]
    loss = -np.take_along_axis(log_softmax(features), batch.inputs.long().numpy()[..., None], -1)[..., 0]
    assert np.allclose(got.loss.detach().numpy(), (loss * hidden.numpy()).sum(1), atol=1e-12)
    assert not any(name.startswith("reconstruction_head") for name, _ in model.named_parameters())
    got.mean().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("label_head"))


def test_identity_head_needs_tokens_and_a_feature_for_each() -> None:
    with pytest.raises(ConfigError, match="inputs are tokens"):
        make_model(TransformerConfig(reconstruction_head="identity"), VALUES, "values", seed=0)
    with pytest.raises(ConfigError, match="13 tokens, but model"):
        make_model(TransformerConfig(d_model=12, reconstruction_head="identity"), TOKENS, "classes", seed=0)
