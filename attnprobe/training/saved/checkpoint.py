"""Checkpoints: tensors and plain data in one file that opens without its data set and never runs code."""

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attnprobe import __version__, run
from attnprobe.config import build, dump
from attnprobe.errors import ConfigError, shown
from attnprobe.files import reading, write_atomically
from attnprobe.models import ReconstructionTarget, Transformer, make_model
from attnprobe.models.parameter_sets import matching, sets_of
from attnprobe.objectives import Classification, Objective, Regression
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data, Outline, Spec, Task
from attnprobe.training.saved.documents import read_document

FORMAT = "attnprobe checkpoint"
FORMAT_VERSION = 2
Described = TypeVar("Described")
LARGEST_SIZE = 2**31  # of anything a description of inputs counts

# Heads depend on the task, so they may start afresh when shapes differ; anything else must fit.
HEADS = ("label_head.", "reconstruction_head.")


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

    def objectives(self) -> list[Objective]:
        """What the model was or will be trained for, in order."""
        finetune = self.run.finetune
        return [phase.objective for phase in (self.pretrain, finetune) if phase is not None]

    def objective(self) -> Objective:
        """What the labels are asked for: the last phase's objective if that uses labels, else what fits the data."""
        last = list(self.run.phases().values())[-1].objective
        if last.target is None:
            return last
        return Regression() if self.spec.regression else Classification()

    def make_model(self) -> Transformer:
        model = make_model(self.run.model, self.spec, self.target, seed=self.run.seed)
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
    if spec.grid is not None and math.prod(spec.grid) != spec.length:
        raise ValueError("spec.grid does not fit the length")
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
    if checkpoint.target not in ("values", "classes"):
        raise ValueError(f"unknown target {shown(checkpoint.target)}")
    if checkpoint.target == "classes" and not checkpoint.spec.is_tokens and checkpoint.spec.levels is None:
        raise ValueError("continuous values cannot be reconstructed as classes")
    if not isinstance(state, dict) or checkpoint.run.model.layers > len(state):
        raise ValueError("it has fewer tensors than its model")
    with torch.device("meta"):  # shapes without memory
        expected = Transformer(checkpoint.run.model, checkpoint.spec, checkpoint.target).state_dict()
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a fresh model took over from an earlier one, and what it did not."""

    carried: tuple[str, ...]
    fresh: tuple[str, ...]  # not asked for
    unfit: tuple[str, ...]  # asked for, but a head of another size


def transfer(model: nn.Module, source: dict[str, Tensor], wanted: str | tuple[str, ...]) -> Transfer:
    """Copy the parameters named by ``wanted`` (a set's name or patterns) from ``source`` into ``model``."""
    own = dict(model.named_parameters())
    selected = match_parameters(model, wanted, "transfer")
    unfit = {n for n in selected if n not in source or source[n].shape != own[n].shape}
    wrong = sorted(n for n in unfit if not n.startswith(HEADS))
    if wrong:
        have = tuple(source[wrong[0]].shape) if wrong[0] in source else "nothing of that name"
        message = f"cannot carry over {wrong[0]}: shape {tuple(own[wrong[0]].shape)} is needed, the source has {have}"
        raise ConfigError(message, hint="use the same model settings in both phases, or transfer fewer parameters")
    with torch.no_grad():
        for name in sorted(selected - unfit):
            own[name].copy_(source[name])
    return Transfer(
        carried=tuple(sorted(selected - unfit)),
        fresh=tuple(sorted(set(own) - selected)),
        unfit=tuple(sorted(unfit)),
    )


def freeze(model: nn.Module, wanted: str | tuple[str, ...]) -> set[str]:
    """Keep the parameters named by ``wanted`` fixed; returns their names."""
    own = dict(model.named_parameters())
    frozen = match_parameters(model, wanted, "freeze")
    for name in frozen:
        own[name].requires_grad_(False)
    return frozen


Start = tuple[dict[str, Tensor] | None, Phase | None]


def starting_point(config: RunConfig) -> Start:
    """The tensors of the checkpoint that the run starts from, if any; and the self-pretraining behind its models."""
    if config.pretrained is None:
        return None, config.pretrain
    checkpoint = load_checkpoint(config.pretrained)
    return checkpoint.state, checkpoint.pretrain


def check_run(config: RunConfig, start: Start, load: Callable[[Task], Data | Outline]) -> Transformer:
    """Refuse a run that could not be carried out, before anything is trained or written; returns its last model.

    Goes through the phases on untrained models: data, objective, transfer and freezing must fit. start: what
    ``starting_point`` gave.
    """
    source, pretrain = start
    model = None
    for phase in config.phases().values():
        data = load(config.task_of(phase))
        phase.objective.check(config.model, data.spec)
        model = make_model(
            config.model, data.spec, run.reconstruction_target(config, data.spec, pretrain), seed=config.seed
        )
        match_parameters(model, phase.transfer, "transfer")  # from scratch too: what is asked for must be there
        if source is not None:
            transfer(model, source, phase.transfer)
        unused = "label_head." if phase.objective.target is not None else "reconstruction_head."
        reached = {name for name, _ in model.named_parameters() if not name.startswith(unused)}
        if reached <= freeze(model, phase.freeze):
            raise ConfigError(
                "freeze leaves nothing to train",
                hint="freeze fewer parameters: finetune.freeze and pretrain.freeze name them",
            )
        source = model.state_dict()
    assert model is not None, "a run has at least one phase"
    return model


def match_parameters(model: nn.Module, wanted: str | tuple[str, ...], field: str) -> set[str]:
    """Names of the parameters that a set's name or patterns stand for; ConfigError if that is none of this model's."""
    if isinstance(wanted, str):
        sets = sets_of(model)
        if wanted not in sets:
            message = f"{field} {wanted!r} names no parameters of this model"
            raise ConfigError(message, hint=f"it has the sets {', '.join(sorted(sets))}; or give a list of patterns")
        return sets[wanted]
    names = [name for name, _ in model.named_parameters()]
    for pattern in wanted:
        if not matching(names, (pattern,)):
            hint = f"parameters are named like {', '.join(names[:4])}"
            raise ConfigError(f"{field} pattern {pattern!r} matches no parameter of this model", hint=hint)
    return matching(names, wanted)
