"""Every named run is built and makes its first steps, on drawn data or on small files in the published formats."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.models import make_model
from attnprobe.models.hugging_face.settings import as_text
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data
from attnprobe.training.updates.optim import make_optimizer
from tests.models.hugging_face.small import description
from tests.tasks.true_formats import FEW, in_published_formats


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return in_published_formats(tmp_path, monkeypatch)


def short(name: str) -> RunConfig:
    """The preset with sequences of a few positions and one block, where its own would take hours."""
    table = presets.read_table(name)
    few = FEW[table["task"]["name"]] | ({"side": 32} if name.startswith("path") else {})
    few |= {"path": "tokens.npz"} if name == "arrays-tokens" else {}
    changes = ["model.layers=1", *(f"task.{setting}={value}" for setting, value in few.items())]
    if "backbone" in table["model"]:
        pytest.importorskip("transformers")
        tiny = as_text(description("gpt_neox", vocab_size=300))
        changes += ["model.backbone.weights=drawn", f"model.backbone.architecture='{tiny}'"]
    if "states" in table["model"].get("mixer", {}):
        changes.append("model.mixer.states=4")
    return run.from_table(override(table, changes))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.hf] if "pythia" in name else []) for name in presets.descriptions()]
)
def test_every_preset_makes_its_first_steps(name: str, data_dir: Path) -> None:
    config = short(name)
    data = config.task.load(data_dir)
    assert config.phases()
    for phase in config.phases().values():
        first_step(config, phase, data)


def first_step(config: RunConfig, phase: Phase, data: Data) -> None:
    """A step of the optimizer, too small to jump over the ties of a maximum, lowers the loss of its own batch."""
    phase.objective.check(config.model, data.spec)
    model = make_model(config.model, data.spec, run.reconstruction_target(config, data.spec, config.pretrain), seed=0)
    optimizer = make_optimizer(dataclasses.replace(phase.optimizer, lr=1e-6), model)
    batch = data.train.batch(torch.arange(2))
    before = phase.objective.losses(model, batch, seed=0, epoch=0).mean()
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = phase.objective.losses(model, batch, seed=0, epoch=0).mean()
    assert 0 < after < before


OF_NO_PAPER = {"textures", "textures-10x10", "textures-shortcut", "fashion-mnist"}
OF_ONES_OWN_DATA = {"arrays", "arrays-tokens", "table", "images"}


VARIANTS = re.compile(
    "(-(rotary|sinusoidal|coser|causal|256|rr|hr|spo2|s4|dlr|pythia|random|lra|"
    "local|linear|performer|linformer|longformer|bigbird|reformer|mega|spade))+$"
)


def test_every_published_data_set_has_a_run_for_small_machines() -> None:
    """Those of textures and Fashion-MNIST are small as they are: no paper of the two trains on them."""
    names = set(presets.descriptions())
    data_sets = {VARIANTS.sub("", name) for name in names if not name.endswith("-small")}
    data_sets -= OF_NO_PAPER | OF_ONES_OWN_DATA
    assert {f"{name}-small" for name in data_sets} <= names
