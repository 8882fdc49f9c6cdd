"""Undamaged files of a run, what reads them, and damage that only they can have."""

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
import torch

from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.files import check_plain, reading
from attnprobe.models import make_model
from attnprobe.models.initialisation import state_on_cpu
from attnprobe.training.loop import Trainer
from attnprobe.training.saved.checkpoint import Checkpoint, save_checkpoint
from attnprobe.training.saved.resuming import RESUME_FORMAT, RESUME_VERSION, read_resume
from tests.fuzz.mutation import changed, damaged, pickle_damaged, saved
from tests.training.conftest import SMALL

Mutate = Callable[[random.Random], bytes]

RESULT = json.dumps(
    {"run_dir": "r", "checkpoints": {"init": "i"}, "phase": "finetuned", "objective": "classification", "seed": 0,
     "seconds": 1.0, "train_accuracy": 0.5, "validation_accuracy": 0.5, "test_accuracy": 0.5, "test_loss": 1.0}
).encode()  # fmt: skip
METRICS = b'{"phase": "finetuned", "epoch": 1, "train_accuracy": 0.5}\n{"phase": "finetuned", "train_accuracy": 1}\n'
ROW = {"run": "r", "phase": "finetuned", "step": 1, "layer": 0, "head": 1, "quantity": "q", "direction": None}
TRAJECTORY = ((json.dumps(ROW | {"estimate": 0.5, "p_value": None}) + "\n") * 3).encode()


def settings() -> run.RunConfig:
    return run.from_table(override(presets.read_table("textures"), SMALL))


@functools.cache
def data():
    return settings().task.load()


def trainer() -> Trainer:
    config = settings()
    assert config.finetune is not None
    model = make_model(config.model, data().spec, "values", seed=0)
    return Trainer(model, data(), "finetuned", config.finetune, config.engine, seed=0)


@functools.cache
def checkpoint() -> dict[str, Any]:
    config = settings()
    model = make_model(config.model, data().spec, "values", seed=0)
    path = Path("sound.pt")
    save_checkpoint(
        path,
        Checkpoint(
            run=config, phase="finetuned", task=config.task, spec=data().spec, target="values", epoch=1,
            numbers={"validation_loss": 1.0}, state=state_on_cpu(model), pretrain=config.pretrain,
        ),
    )  # fmt: skip
    return torch.load(path, weights_only=True)


@functools.cache
def resume() -> dict[str, Any]:
    training = trainer()
    batches = training.batches(0)
    training.progress.sums = torch.zeros(3)
    for position in range(2):
        training.progress.sums += training.update(batches[position], 0)
        training.progress.step += 1
    return {
        "format": RESUME_FORMAT, "format_version": RESUME_VERSION, "phase": "finetuned", "finished": ["pretrained"],
        "trainer": training.state_dict(), "sizes": {"metrics.jsonl": 9}, "seconds": 1.5,
    }  # fmt: skip


def go_on(path: Path) -> None:
    """Load, and make a step: what does not fit the optimizer crashes there."""
    document = read_resume(path, ["pretrained", "finetuned"])
    training = trainer()
    with reading(path):
        training.load_state_dict(document["trainer"])
    if training.progress.step < training.steps:
        training.update(training.batches(0)[0], 0)


def of_torch(document: Callable[[], dict[str, Any]]) -> Callable[[], list[Mutate]]:
    return lambda: [
        lambda draw: saved(changed(document(), draw)),
        lambda draw: pickle_damaged(saved(document()), draw),
    ]


def of_json(content: Callable[[], bytes], *, lines: bool) -> Callable[[], list[Mutate]]:
    def mutate(draw: random.Random) -> bytes:
        documents = [json.loads(line) for line in content().splitlines()] if lines else [json.loads(content())]
        place = draw.randrange(len(documents))
        documents[place] = changed(documents[place], draw)
        try:
            check_plain(documents)  # what is entangled could not even be written
            return "\n".join(map(json.dumps, documents)).encode()
        except (ValueError, TypeError):
            return damaged(content(), draw)

    return lambda: [mutate]


def toml() -> bytes:
    return tomli_w.dumps(run.to_table(settings())).encode()


def of_toml(draw: random.Random) -> bytes:
    table = changed(run.to_table(settings()), draw)
    try:
        check_plain(table)
        return tomli_w.dumps(table).encode()
    except (ValueError, TypeError, RecursionError, AttributeError):
        return damaged(toml(), draw)


def assignment(path: Path) -> None:
    run.from_table(override(presets.read_table("textures"), path.read_text(errors="replace").split("\0")))
