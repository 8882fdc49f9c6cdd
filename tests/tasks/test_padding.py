"""Padding is not data: no task's logits or losses change with the amount of it, whatever the model."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprobe.config import build
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.objectives import CausalPrediction, MaskedReconstruction, Objective, label_outputs
from attnprobe.tasks import TASKS, Batch, Data
from tests.tasks.true_formats import FEW, in_published_formats

EXTRA = 13  # padded positions that are added
PADDED = {
    "listops": {},
    "text": {},
    "retrieval": {},
    "speech-commands": {"padding": "masked"},
    "arrays": {},
    "table": {},
}
TOLERANCE = 1e-12  # float64

MODELS: dict[str, dict[str, Any]] = {
    f"{positions} {readout}{' causal' if causal else ''}": {
        "positions": positions,
        "readout": readout,
        "causal": causal,
    }
    for positions in ("none", "learned", "sinusoidal", "rotary")
    for readout in ("mean", "max", "last", "token")
    for causal in (False, True)
    if not (causal and readout == "token")
}
MODELS |= {"mlp head": {"label_head": "mlp"}, "tied": {"init": "tied"}, "three layers": {"layers": 3}}


@functools.cache
def load(name: str) -> Data:
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
        data_dir = in_published_formats(Path(folder), monkeypatch)
        return build(TASKS[name], FEW[name] | PADDED[name], "task").load(data_dir)


def batches(data: Data) -> tuple[Batch, Batch]:
    """The same samples as they are, and with more padding that is full of what stands elsewhere."""
    short = data.train.batch(torch.arange(4))
    assert short.valid is not None
    assert not short.valid.all(), "nothing would be tested"
    axis = short.valid.dim() - 1
    if not data.spec.is_tokens:
        short = dataclasses.replace(short, inputs=short.inputs.double())
    noise = short.inputs.flip(0).narrow(axis, 0, EXTRA)
    no = torch.zeros_like(short.valid.narrow(axis, 0, EXTRA))
    inputs, valid = torch.cat([short.inputs, noise], axis), torch.cat([short.valid, no], axis)
    return short, dataclasses.replace(short, inputs=inputs, valid=valid)


def model_for(data: Data, settings: dict[str, Any]) -> Transformer:
    config = TransformerConfig(**({"d_model": 12, "heads": 3, "d_mlp": 17, "layers": 2} | settings))
    spec = dataclasses.replace(data.spec, length=data.spec.length + EXTRA)
    return make_model(config, spec, "classes" if spec.is_tokens else "values", seed=0).double()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PADDED)
def test_logits_are_unchanged_by_extra_padding(name: str, model: str) -> None:
    data = load(name)
    net = model_for(data, MODELS[model])
    short, long = batches(data)
    with torch.no_grad():
        logits = label_outputs(net, short)
        assert logits.std() > 0
        assert (label_outputs(net, long) - logits).abs().max() < TOLERANCE


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", PADDED)
def test_reconstruction_is_unchanged_by_extra_padding(name: str, causal: bool) -> None:
    data = load(name)
    net = model_for(data, {"causal": causal})
    loss = "cross_entropy" if data.spec.is_tokens else "l1"
    objective: Objective = CausalPrediction(loss=loss) if causal else MaskedReconstruction(loss=loss, ratio=0.4)
    with torch.no_grad():
        few, many = (objective.losses(net, batch, seed=0, epoch=2) for batch in batches(data))
    assert torch.equal(few.count, many.count)
    assert few.count.min() > 0
    assert (few.loss - many.loss).abs().max() < 100 * TOLERANCE


def test_padding_that_is_attended_does_change_them() -> None:
    """The published behaviour, by name only: otherwise the tests above could not fail."""
    data = load("listops")
    net = model_for(data, {"padding": "attended"})
    short, long = batches(data)
    assert (label_outputs(net, long) - label_outputs(net, short)).abs().max() > 1e-3
