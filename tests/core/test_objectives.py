"""Objectives against plain numpy on small float64 models."""

import numpy as np
import pytest
import torch

from attnprobe.errors import ConfigError
from attnprobe.masking import bernoulli_mask
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction, Regression
from attnprobe.tasks import Batch, Spec

LENGTH, BATCH = 7, 5
CONFIG = TransformerConfig(d_model=6, heads=3, d_mlp=11)
VALUES = Spec(length=LENGTH, classes=3, channels=2, mean=(0.5, 1.0), std=(2.0, 0.25))
LEVELS = Spec(length=LENGTH, classes=3, channels=2, levels=13, mean=(6.0, 5.0), std=(3.0, 4.0))
TOKENS = Spec(length=LENGTH, classes=3, vocabulary=13)
PAIRS = Spec(length=LENGTH, classes=2, vocabulary=13, pairs=True)


def make_batch(spec: Spec, padded: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, 2, LENGTH) if spec.pairs else (BATCH, LENGTH)
    if spec.is_tokens:
        inputs = torch.randint(1, 13, shape, generator=generator, dtype=torch.uint8)
    elif spec.levels:
        inputs = torch.randint(0, 13, (*shape, 2), generator=generator, dtype=torch.uint8)
    else:
        inputs = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([7, 2, 5, 1, 7])
    lengths = torch.stack([lengths, lengths.flip(0)], 1) if spec.pairs else lengths
    valid = torch.arange(LENGTH) < lengths[..., None] if padded else None
    labels = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0]) if spec.regression else torch.tensor([0, 1, 1, 0, 1])
    return Batch(inputs=inputs, labels=labels, sample=torch.tensor([4, 0, 11, 2, 7]), valid=valid)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_masked_values(loss: str, padded: bool) -> None:
    model, batch = make_model(CONFIG, VALUES, "values", seed=0).double(), make_batch(VALUES, padded)
    got = MaskedReconstruction(ratio=0.4, loss=loss).losses(model, batch, seed=5, epoch=3)
    hidden = bernoulli_mask(0.4, seed=5, sample=batch.sample, epoch=3, length=LENGTH, valid=batch.valid)
    prediction = model.reconstruct(model(batch.inputs, hidden=hidden, valid=batch.valid)).detach().numpy()
    target = (batch.inputs.numpy() - VALUES.mean) / VALUES.std
    for b in range(BATCH):
        errors = [prediction[b, i] - target[b, i] for i in range(LENGTH) if hidden[b, i]]
        wanted = sum(np.abs(e).mean() if loss == "l1" else (e**2).mean() for e in errors)
        assert got.loss[b].item() == pytest.approx(wanted, abs=1e-12)
        assert got.count[b] == len(errors)
    assert got.mean().item() == pytest.approx((got.loss.sum() / hidden.sum()).item())


@pytest.mark.parametrize("spec", [LEVELS, TOKENS], ids=["levels", "tokens"])
def test_masked_classes(spec: Spec) -> None:
    model, batch = make_model(CONFIG, spec, "classes", seed=0).double(), make_batch(spec, padded=True)
    got = MaskedReconstruction(ratio=0.5, loss="cross_entropy").losses(model, batch, seed=5, epoch=3)
    hidden = bernoulli_mask(0.5, seed=5, sample=batch.sample, epoch=3, length=LENGTH, valid=batch.valid)
    logits = model.reconstruct(model(batch.inputs, hidden=hidden, valid=batch.valid)).detach().numpy()
    target = batch.inputs.numpy().reshape(BATCH, LENGTH, -1).astype(int)
    for b in range(BATCH):
        loss = right = 0.0
        for i in range(LENGTH):
            if hidden[b, i]:
                channels = [-log_softmax(logits[b, i, c])[t] for c, t in enumerate(target[b, i])]
                loss += np.mean(channels)
                right += np.mean([logits[b, i, c].argmax() == t for c, t in enumerate(target[b, i])])
        assert got.loss[b].item() == pytest.approx(loss, abs=1e-12)
        assert got.correct is not None
        assert got.correct[b].item() == pytest.approx(right, abs=1e-6)


def test_the_target_is_never_seen() -> None:
    """Changing a hidden value changes neither the prediction nor, at other positions, the loss."""
    model, batch = make_model(CONFIG, VALUES, "values", seed=0).double(), make_batch(VALUES)
    hidden = bernoulli_mask(0.5, seed=1, sample=batch.sample, epoch=0, length=LENGTH)
    changed = torch.where(hidden[..., None], batch.inputs + 10, batch.inputs)
    before = model.reconstruct(model(batch.inputs, hidden=hidden))
    assert torch.equal(model.reconstruct(model(changed, hidden=hidden)), before)


def test_causal_prediction_scores_the_next_input_only() -> None:
    config = TransformerConfig(d_model=6, heads=3, d_mlp=11, causal=True)
    model, batch = make_model(config, VALUES, "values", seed=0).double(), make_batch(VALUES, padded=True)
    got = CausalPrediction(loss="l2").losses(model, batch, seed=0, epoch=0)
    prediction = model.reconstruct(model(batch.inputs, valid=batch.valid)).detach().numpy()
    target = (batch.inputs.numpy() - VALUES.mean) / VALUES.std
    assert batch.valid is not None
    for b in range(BATCH):
        n = int(batch.valid[b].sum())
        wanted = sum(((prediction[b, i] - target[b, i + 1]) ** 2).mean() for i in range(n - 1))
        assert got.loss[b].item() == pytest.approx(wanted, abs=1e-12)
        assert got.count[b] == n - 1


@pytest.mark.parametrize("readout", ["mean", "max", "last"])
def test_classification_with_padding(readout: str) -> None:
    config = TransformerConfig(d_model=6, heads=3, d_mlp=11, readout=readout)
    model, batch = make_model(config, TOKENS, "classes", seed=0).double(), make_batch(TOKENS, padded=True)
    got = Classification().losses(model, batch, seed=0, epoch=0)
    features = model(batch.inputs, valid=batch.valid).detach().numpy()
    weight, bias = model.label_head.weight.detach().numpy(), model.label_head.bias.detach().numpy()
    assert batch.valid is not None
    for b in range(BATCH):
        real = features[b, : int(batch.valid[b].sum())]
        pooled = {"mean": real.mean(0), "max": real.max(0), "last": real[-1]}[readout]
        logits = weight @ pooled + bias
        assert got.loss[b].item() == pytest.approx(-log_softmax(logits)[batch.labels[b]], abs=1e-12)
        assert got.correct is not None
        assert bool(got.correct[b]) == (logits.argmax() == batch.labels[b].item())


def test_pairs_are_encoded_apart_and_compared() -> None:
    model, batch = make_model(CONFIG, PAIRS, "classes", seed=0).double(), make_batch(PAIRS, padded=True)
    got = Classification().losses(model, batch, seed=0, epoch=0)
    assert batch.valid is not None
    up, down = model.label_head.up, model.label_head.down
    for b in range(BATCH):
        pooled = []
        for text in (0, 1):
            n = int(batch.valid[b, text].sum())
            pooled.append(model(batch.inputs[b, text, :n][None])[0].mean(0))
        x = torch.cat([pooled[0], pooled[1], pooled[0] - pooled[1], pooled[0] * pooled[1]])
        logits = down(torch.nn.functional.gelu(up(x))).detach().numpy()
        assert got.loss[b].item() == pytest.approx(-log_softmax(logits)[batch.labels[b]], abs=1e-12)
    masked = MaskedReconstruction(ratio=0.5, loss="cross_entropy").losses(model, batch, seed=0, epoch=0)
    assert masked.loss.shape == (2 * BATCH,)
    assert len(torch.unique(batch.unpaired().sample)) == 2 * BATCH  # each text has masks of its own


def test_regression() -> None:
    spec = Spec(length=LENGTH, classes=1, channels=2, regression=True)
    model, batch = make_model(CONFIG, spec, "values", seed=0).double(), make_batch(spec)
    got = Regression().losses(model, batch, seed=0, epoch=0)
    output = model.classify(model(batch.inputs)).detach()[:, 0]
    assert torch.allclose(got.loss.detach(), (output - batch.labels) ** 2)
    with pytest.raises(ConfigError, match="labels are numbers"):
        Classification().check(CONFIG, spec)
    with pytest.raises(ConfigError, match="labels are classes"):
        Regression().check(CONFIG, TOKENS)


def test_objectives_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="inputs are tokens"):
        MaskedReconstruction(loss="l1").check(CONFIG, TOKENS)
    with pytest.raises(ConfigError, match="values are continuous"):
        MaskedReconstruction(loss="cross_entropy").check(CONFIG, VALUES)
    MaskedReconstruction(loss="cross_entropy").check(CONFIG, LEVELS)


def test_attended_padding_is_the_published_behaviour() -> None:
    """Pads are keys like any other, so features depend on how much a batch is padded; pooling respects lengths."""
    attended = make_model(TransformerConfig(d_model=6, heads=3, padding="attended"), TOKENS, "classes", seed=0).double()
    batch = make_batch(TOKENS, padded=True)
    assert torch.equal(attended(batch.inputs, valid=batch.valid), attended(batch.inputs))
    masked = make_model(TransformerConfig(d_model=6, heads=3), TOKENS, "classes", seed=0).double()
    assert not torch.allclose(masked(batch.inputs, valid=batch.valid), attended(batch.inputs))
