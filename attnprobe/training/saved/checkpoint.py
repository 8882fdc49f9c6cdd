"""Checkpoints: tensors and plain data in one file that opens without its data set and never runs code."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from attnprobe import __version__, run
from attnprobe.config import build, dump
from attnprobe.errors import ConfigError, shown
from attnprobe.files import reading, write_atomically
from attnprobe.models import ReconstructionTarget, Transformer
from attnprobe.models.initialisation import undrawn, unfilled
from attnprobe.objectives import Classification, Objective, Regression
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Spec, Task
from attnprobe.training.saved.documents import read_document

FORMAT = "attnprobe checkpoint"
FORMAT_VERSION = 2
Described = TypeVar("Described")
LARGEST_SIZE = 2**31  # of anything a description of inputs counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at one moment of a run, with everything needed to use it again."""

    run: RunConfig
    phase: str  # "init", "pretrained", "finetuned", or "step-<n>"
    task: Task  # the data the model was trained on in that phase
    spec: Spec
    target: ReconstructionTarget
    epoch: int  # the selected epoch, counted from 1; 0 = initial
    numbers: dict[str, float]  # training and validation metrics of that epoch
    state: dict[str, Tensor]
    pretrain: Phase | None = None  # the self-pretraining behind the model: of this run, or of its --pretrained
    data_sha256: str | None = None  # of the data the model was trained on in that phase; None before it was kept

    def objectives(self) -> list[Objective]:
        """What the model was or will be trained for, in order."""
        return run.objectives(self.run, self.pretrain)

    def objective(self) -> Objective:
        """What the labels are asked for: the last phase's objective if that uses labels, else what fits the data."""
        last = list(self.run.phases().values())[-1].objective
        if last.target is None:
            return last
        return Regression() if self.spec.regression else Classification()

    def make_model(self) -> Transformer:
        model = unfilled(self.run.model, self.spec, self.target)
        model.load_state_dict(self.state)
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state.items()}
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "attnprobe_version": __version__,
        "run": run.to_table(checkpoint.run),
        "phase": checkpoint.phase,
        "spec": dataclasses.asdict(checkpoint.spec),
        "target": checkpoint.target,
        "epoch": checkpoint.epoch,
        "numbers": checkpoint.numbers,
        "pretrain": None if checkpoint.pretrain is None else dump(checkpoint.pretrain),
        "data_sha256": checkpoint.data_sha256,
        "state": state,
    }
    write_atomically(path, lambda file: torch.save(document, file))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; ArtifactError if the file is missing, damaged, of a newer format, or would run code."""
    document = read_document(path, FORMAT, FORMAT_VERSION)
    with reading(path, hint="it is damaged or of an unknown layout; was it written by attnprobe?"):
        settings = run.from_checkpoint_table(document["run"], str(path))
        phases = settings.phases()
        pretrain = document.get("pretrain")  # before format version 2, only the run's own was known
        phase = phases.get(document["phase"]) or next(iter(phases.values()))
        checkpoint = Checkpoint(
            run=settings,
            phase=document["phase"],
            task=settings.task_of(phase),
            spec=read_spec(document["spec"]),
            target=document["target"],
            epoch=document["epoch"],
            numbers=document["numbers"],
            state=document["state"],
            pretrain=settings.pretrain if pretrain is None else described(Phase, pretrain),
            data_sha256=document.get("data_sha256"),
        )
        check_checkpoint(checkpoint)
    return checkpoint


def described(cls: type[Described], table: Any) -> Described:
    """As ``build``, but what is wrong is not the user's mistake; ValueError."""
    try:
        return build(cls, table)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def read_spec(table: dict[str, Any]) -> Spec:
    """ValueError unless the table describes inputs that a model can have."""
    spec = described(Spec, {name: value for name, value in table.items() if value is not None})
    sizes = {"length": spec.length, "classes": spec.classes, "channels": spec.channels}
    sizes |= {"vocabulary": spec.vocabulary or 1, "levels": spec.levels or 1}
    for name, size in sizes.items():
        if not 0 < size <= LARGEST_SIZE:
            raise ValueError(f"spec.{name} {size} is impossible")
    if {len(spec.mean), len(spec.std)} - {1, spec.channels} or not all(std > 0 for std in spec.std):
        raise ValueError("spec.mean and spec.std do not fit the channels")
    if spec.class_names and len(spec.class_names) != spec.classes:
        raise ValueError("spec.class_names do not fit the classes")
    if spec.grid is not None and math.prod(spec.grid) != spec.length:
        raise ValueError("spec.grid does not fit the length")
    if spec.symbols is not None and len(spec.symbols) != spec.vocabulary:
        raise ValueError("spec.symbols does not name every token")
    return spec


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """ValueError unless all parts are of their kinds and the tensors are those of the model; nothing is allocated."""
    numbers, state = checkpoint.numbers, checkpoint.state
    if checkpoint.phase not in ("init", "pretrained", "finetuned") and not re.fullmatch(
        r"step-\d{1,18}", checkpoint.phase
    ):
        raise ValueError(f"unknown phase {shown(checkpoint.phase)}")
    if type(checkpoint.epoch) is not int or checkpoint.epoch < 0:
        raise ValueError(f"epoch {shown(checkpoint.epoch)} is no number of epochs")
    if not all(isinstance(n, str) and type(v) in (int, float) for n, v in numbers.items()):
        raise ValueError("its numbers are no numbers")
    if not isinstance(checkpoint.data_sha256, str | None):
        raise ValueError("its checksum of the data is no text")
    if checkpoint.target not in ("values", "classes"):
        raise ValueError(f"unknown target {shown(checkpoint.target)}")
    if checkpoint.target == "classes" and not checkpoint.spec.is_tokens and checkpoint.spec.levels is None:
        raise ValueError("continuous values cannot be reconstructed as classes")
    model = checkpoint.run.model
    layers = model.layers if model.backbone is None else model.backbone.most_layers
    if not isinstance(state, dict) or layers > len(state):
        raise ValueError("it has fewer tensors than its model")
    with torch.device("meta"):  # shapes without memory
        expected = undrawn(model, checkpoint.spec, checkpoint.target).state_dict()
    check_tensors(state, expected)


def check_tensors(found: Any, expected: dict[str, Tensor]) -> None:
    """ValueError unless both hold tensors of the same names, shapes and types."""
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError("tensors are missing")
    for name in sorted(set(found) ^ set(expected), key=str):
        raise ValueError(f"tensor {shown(name)} {'is missing' if name in expected else 'belongs to no such model'}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            need, have = ([*t.shape, t.dtype] for t in (tensor, found[name]))
            raise ValueError(f"tensor {name} should be {need}, it is {have}")
