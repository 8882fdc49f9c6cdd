"""What one run is: a task, a model, and up to two phases of training. ``-s section.key=value`` reaches every field."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from attnprobe import config, published
from attnprobe.config import require, require_positive
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.models import ReconstructionTarget, TransformerConfig
from attnprobe.models.parameter_sets import known_sets
from attnprobe.objectives import OBJECTIVES, Objective, has_accuracy, reconstruction
from attnprobe.tasks import TASKS, Spec, Task

DEFAULT_PRESET = "textures"
SECTIONS = {"pretrain": "pretrained", "finetune": "finetuned"}  # of the settings, and what their checkpoints are called

AttentionKernel = Literal["cudnn", "flash", "efficient", "math"]  # torch's names of what computes attention
Precision = Literal["float32", "tf32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with a linear warm-up."""

    lr: float = 1e-3  # the learning rate after the warm-up
    # after the warm-up: lr; half a cosine or a line from it to zero; lr times sqrt(warmup / step) (inverse_sqrt,
    # Vaswani et al. 2017); lr times factor from each milestone on; or lr times factor whenever the validation number
    # that selects epochs stalls (plateau, torch's ReduceLROnPlateau)
    schedule: Literal["constant", "cosine", "linear", "inverse_sqrt", "multistep", "plateau"] = "cosine"
    warmup: int | float = 0.05  # a whole number counts steps, a fraction is the share of all steps
    warmup_start: Literal["step", "zero"] = "step"  # zero: the first update has rate 0, as in the published code
    milestones: tuple[int, ...] = ()  # multistep: epochs of the phase after which the rate falls
    factor: float = 0.1  # multistep and plateau: what the rate is multiplied with each time
    patience: int = 10  # plateau: epochs without improvement (by 1e-4 of the best) that are waited through
    weight_decay: float = 0.0  # decoupled, times the learning rate (Loshchilov and Hutter 2019)
    decay: Literal["matrices", "all"] = "matrices"  # all: also biases, norms and embeddings, as the published code does
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW's running averages of gradients and of their squares
    clip: float | None = None  # largest gradient norm; None = no clipping

    def __post_init__(self) -> None:
        require_positive(self, "lr", "clip")
        require(self.weight_decay >= 0, "weight_decay", f"must not be negative, got {self.weight_decay}")
        require(self.warmup >= 0, "warmup", f"must not be negative, got {self.warmup}")
        fraction = isinstance(self.warmup, int) or self.warmup <= 1
        require(fraction, "warmup", f"must be a share below 1 or a whole number of steps, got {self.warmup}")
        require(all(0 <= b < 1 for b in self.betas), "betas", f"must lie in [0, 1), got {list(self.betas)}")
        require(0 < self.factor < 1, "factor", f"must lie between 0 and 1, got {self.factor}")
        require(self.patience >= 0, "patience", f"must not be negative, got {self.patience}")
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        require(rising, "milestones", f"must be rising numbers of epochs above 0, got {list(self.milestones)}")
        fits = (self.schedule == "multistep") == bool(self.milestones)
        require(fits, "milestones", "belong to schedule='multistep', which needs at least one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of training: self-pretraining or finetuning, according to its objective."""

    objective: Objective = dataclasses.field(metadata={"choices": OBJECTIVES})  # what is learned from the inputs
    epochs: int = 100  # passes over the training set, at most
    batch_size: int = 50  # sequences per update; the last incomplete batch of an epoch is left out
    optimizer: Optimizer = Optimizer()  # AdamW and its learning rate
    # the validation number that picks the epoch to keep: the objective's own (accuracy of classification, else loss),
    # or another one; published runs reconstruct tokens and grey levels by accuracy (Amos et al. 2023, C.1)
    selection: Literal["objective", "accuracy", "loss", "last"] = "objective"
    ties: Literal["earlier", "later"] = "earlier"  # which of equally good epochs is kept; later: as published
    patience: int | None = None  # stop after so many epochs without a better selection number; None = never
    evaluation: Literal["whole", "drop_last"] = "whole"  # drop_last: without the last incomplete batch, as published
    evaluation_masks: Literal["fixed", "fresh"] = "fixed"  # fresh: other ones at every evaluation, as published
    # other data than the run's own; a section without a name is the run's own task with these settings changed
    task: Task | None = dataclasses.field(default=None, metadata={"choices": TASKS})
    transfer: str | tuple[str, ...] = "all"  # what is carried over from the phase before: a set's name or patterns
    freeze: str | tuple[str, ...] = "none"  # what stays fixed: a set's name or patterns

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size")
        possible = self.selection != "accuracy" or has_accuracy(self.objective)
        require(possible, "selection", "cannot be 'accuracy' where an objective's predictions are numbers")
        if self.patience is not None:
            require_positive(self, "patience")
            require(self.selection != "last", "patience", "needs a number to watch, which selection='last' has not")
        for field in ("transfer", "freeze"):
            check_parameter_set(getattr(self, field), field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How the arithmetic is done; changes speed, not what is computed (up to rounding)."""

    precision: Precision = "float32"  # tf32, bfloat16: products of rounded numbers; parameters stay float32
    mode: Literal["auto", "eager", "compiled", "graph"] = "auto"  # auto: the verified path, which is eager
    evaluation_batch: int = 1000  # most sequences of one batch
    evaluation_tokens: int = 2**19  # most positions of one batch, unless a single sequence has more
    deterministic: bool = False  # only kernels that add up in one fixed order: a GPU repeats a run bit for bit
    # buckets: batches of similar lengths, trimmed; padded: all of one length; longest: in random order, each padded to
    # its longest member, as published
    batching: Literal["buckets", "padded", "longest"] = "buckets"
    attention: Literal["auto", AttentionKernel] = "auto"  # auto: the fastest when the run starts
    # when a loss is NaN or infinite. stop: the last good state stays saved; skip: updates whose loss or gradient is not
    # finite are left out; restart: back to the last save with half the learning rate, at most three times in a phase; a
    # run that stopped may be resumed with another choice
    on_nan: Literal["stop", "skip", "restart"] = "stop"

    def __post_init__(self) -> None:
        require_positive(self, "evaluation_batch", "evaluation_tokens")
        nondeterministic = self.deterministic and self.attention in ("cudnn", "efficient")
        require(not nondeterministic, "attention", f"{self.attention} is not deterministic; leave it at auto")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of one run."""

    task: Task = dataclasses.field(metadata={"choices": TASKS})  # the data, and what their labels are
    model: TransformerConfig = dataclasses.field(default_factory=TransformerConfig)  # the encoder and its heads
    pretrain: Phase | None = None  # None = from scratch
    finetune: Phase | None = None  # None = pretraining only
    pretrained: Path | None = None  # start finetuning from this checkpoint instead of a pretraining phase
    engine: Engine = Engine()  # how the arithmetic is done
    seed: int = 0  # of initialisation, order, masks and dropout
    # true: every switch that brings back a habit of the published code is turned on where it is not given explicitly
    # (see published.py); an explicit setting wins
    published: bool = False

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", f"must not be negative, got {self.seed}")
        require(bool(self.pretrain or self.finetune), "finetune", "and pretrain are both missing: nothing to train")
        if self.pretrained:
            require(self.pretrain is None, "pretrained", "replaces the pretrain section; remove one of them")
            require(self.finetune is not None, "pretrained", "needs a finetune section")

    def phases(self) -> dict[str, Phase]:
        """Phases in order, by the name their checkpoint bears."""
        named = {name: getattr(self, section) for section, name in SECTIONS.items()}
        return {name: phase for name, phase in named.items() if phase is not None}

    def task_of(self, phase: Phase) -> Task:
        return self.task if phase.task is None else phase.task


def check_parameter_set(value: str | tuple[str, ...], field: str) -> None:
    """ConfigError if it is the name of a set that no model has; whether this model has it, its parameters tell."""
    if isinstance(value, str) and value not in known_sets():
        hint = config.did_you_mean(value, known_sets())
        raise ConfigError(f"{field} {value!r} is no named set of parameters", hint=f"{hint} or give a list of patterns")


def objectives(run: RunConfig, pretrain: Phase | None) -> list[Objective]:
    """What the models of a run are trained for, in order.

    pretrain: the self-pretraining behind the run, its own or that of the checkpoint it starts from.
    """
    return [phase.objective for phase in (pretrain, run.finetune) if phase is not None]


def reconstruction_target(run: RunConfig, spec: Spec, pretrain: Phase | None) -> ReconstructionTarget:
    """What the reconstruction head of this run's models produces. pretrain: as of ``objectives``."""
    return reconstruction(objectives(run, pretrain), classes=spec.is_tokens, causal=run.model.causal).target


def from_table(table: config.Table) -> RunConfig:
    """Settings from a table; ``published = true`` in it turns on what published.py lists."""
    return config.build(RunConfig, published.completed(with_phase_tasks(table)))


def with_phase_tasks(table: config.Table) -> config.Table:
    """The task of a phase without a name is the run's own with some settings changed; one with a name is another."""
    task = table.get("task")
    whole = {"name": task} if isinstance(task, str) else task
    result = dict(table)
    for name in ("pretrain", "finetune"):
        phase = table.get(name)
        if not isinstance(phase, dict) or not isinstance(whole, dict):
            continue
        changes = phase.get("task")
        if isinstance(changes, dict) and "name" not in changes:
            result[name] = phase | {"task": whole | changes}
    return result


def resolved(run: RunConfig) -> RunConfig:
    """With what only the source of a backbone tells, so that the settings say all of what the model is."""
    if run.model.backbone is None:
        return run
    from attnprobe.models.hugging_face.pretrained import described

    return dataclasses.replace(run, model=described(run.model))


def to_table(run: RunConfig) -> config.Table:
    return config.dump(run)


def fingerprint(run: RunConfig) -> str:
    """A short hash of all settings: equal fingerprints ask for the same run.

    What is done about a loss that is no number is left out: as long as there is none, the run is the same.
    """
    table = to_table(run)
    del table["engine"]["on_nan"]
    text = json.dumps(table, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_checkpoint_table(table: Any, where: str) -> RunConfig:
    """The settings kept in an artefact; what cannot be read there is the file's fault, not the user's."""
    try:
        return from_table(table)
    except ConfigError as error:
        message = f"{where} holds settings this version does not understand: {error}"
        raise ArtifactError(message, hint=error.hint) from None
