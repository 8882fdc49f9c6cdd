"""Several runs at once: updates at the same step of the same phase are carried out as one update of a stacked model.

Each run stays what it is alone: its own order, masks, checkpoints and run directory. A run that is behind (resumed
from an earlier step than the others) catches up first, and one that has fewer steps leaves early.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from attnprobe.config import choice_name
from attnprobe.errors import AttnprobeError, NotApplicableError
from attnprobe.models.mixers import MIXERS
from attnprobe.models.parts import NO_TWIN
from attnprobe.models.stacking import stack
from attnprobe.objectives import Losses, MaskedReconstruction
from attnprobe.run import Optimizer, Phase, RunConfig
from attnprobe.training.ensembles.group_saves import GroupSaves, Place
from attnprobe.training.ensembles.stacking import StackedAdamW, join
from attnprobe.training.loop import Interrupted, PhaseEnd, Request, Trainer, Training, Update
from attnprobe.training.saved.run_directory import STAGES
from attnprobe.training.updates.arithmetic import process_settings
from attnprobe.training.updates.steppers import arithmetic

# Settings of the optimizer in which members may differ: what makes a member's learning rate and its decay.
RATES = ("lr", "schedule", "warmup", "warmup_start", "milestones", "factor", "patience", "weight_decay")

Returned = TypeVar("Returned")


class Ensemble:
    """Trainers at one step of one phase; ``check_alike`` says what their runs must have in common."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = tuple(trainers)
        models = [t.model for t in trainers]
        self.whole = stack(models)
        self.optimizer = StackedAdamW(self.whole, models, [t.optimizer for t in trainers])
        self.parameter = next(self.whole.parameters())

    def update(self, updates: Sequence[Update]) -> Tensor:
        """One step of all members; (members, 3) sums of loss, count and correct."""
        with process_settings(self.trainers[0].engine):
            return self._update(updates)

    def _update(self, updates: Sequence[Update]) -> Tensor:
        phases = [t.phase for t in self.trainers]
        rates = [t.rate(t.progress.step) for t in self.trainers]
        with arithmetic(self.parameter.device, self.trainers[0].engine):
            losses = self._losses(updates)
        per_member = [part.view(len(rates), -1).sum(1) for part in (losses.loss, losses.count)]
        self.whole.zero_grad(set_to_none=True)
        (per_member[0] / per_member[1].clamp(min=1)).sum().backward()  # each has the gradient it would have alone
        self.optimizer.step(rates, phases[0].optimizer.clip)
        correct = losses.correct
        per_member.append(
            torch.full_like(per_member[0], torch.nan) if correct is None else correct.view(len(rates), -1).sum(1)
        )
        return torch.stack(per_member, dim=1).detach()

    def _losses(self, updates: Sequence[Update]) -> Losses:
        """Per-sequence losses of all members, member after member."""
        batch = join([u.batch for u in updates])
        rows = len(batch) // len(updates) * (2 if self.whole.spec.pairs else 1)

        def per_row(values: Sequence[float]) -> Tensor:
            there = torch.tensor(values).to(batch.labels.device, non_blocking=True)  # or the host would wait
            return there.repeat_interleave(rows)[:, None]

        objectives = [t.phase.objective for t in self.trainers]
        objective = objectives[0]
        if isinstance(objective, MaskedReconstruction) and len(set(objectives)) > 1:
            ratios = [o.ratio for o in objectives if isinstance(o, MaskedReconstruction)]
            objective = copy.copy(objective)
            object.__setattr__(objective, "ratio", per_row(ratios))  # a threshold per row instead of one for all
        seed, epoch = per_row([t.seed for t in self.trainers]), per_row([u.epoch for u in updates])
        return objective.losses(
            self.whole,
            batch,
            seed=seed,  # pyright: ignore[reportArgumentType]
            epoch=epoch,
            training=True,
        )


def together(trainings: Sequence[Training[Returned]], saves: GroupSaves | None = None) -> list[Returned]:
    """Carry out several trainings at once; what each of them returns. ``saves``: when and how they save, all at once.

    If one of them fails or is interrupted, the others are interrupted between the same two steps and have saved when
    its error is raised.
    """
    running = dict(enumerate(trainings))
    waiting: dict[int, Request] = {}
    returned: dict[int, Returned] = {}
    errors: list[Exception] = []

    def go_on(number: int, answer: Tensor | None) -> None:
        try:
            waiting[number] = running[number].send(answer)  # None starts a generator
        except StopIteration as end:
            returned[number] = end.value
            del running[number]
        except Exception as error:  # of any kind: the others must save
            errors.append(error)
            del running[number]

    for number in list(running):
        go_on(number, None)
    ensemble: Ensemble | None = None
    while running and not errors:
        now = min(_place(request) for request in waiting.values())
        ending = [n for n, request in waiting.items() if isinstance(request, PhaseEnd) and _place(request) == now]
        if saves is not None and (ending or saves.due()):
            try:
                saves.save({number: request.trainer for number, request in waiting.items()})
            except AttnprobeError as error:  # one that cannot be saved: the others go on from the last common step
                errors.append(error)
                break
        for number in ending:
            del waiting[number]
            go_on(number, None)
        if ending:
            continue
        chosen = {n: r for n, r in waiting.items() if isinstance(r, Update) and _place(r) == now}
        trainers = tuple(update.trainer for update in chosen.values())
        if ensemble is None or ensemble.trainers != trainers:
            ensemble = Ensemble(trainers)
        try:
            answers = ensemble.update(list(chosen.values()))
        except Exception as error:  # the first one may explain it, the others save
            try:
                running.pop(next(iter(chosen))).throw(error)
            except Exception as told:
                errors.append(told)
            break
        for number, answer in zip(chosen, answers, strict=True):
            del waiting[number]
            go_on(number, answer)
    for training in running.values():
        try:
            training.throw(Interrupted())
        except Interrupted:
            continue
        except Exception as error:  # one that cannot save must not keep the next one from it
            errors.append(error)
    if saves is not None and errors and all(isinstance(error, Interrupted) for error in errors):
        saves.commit([number for number in range(len(trainings)) if number not in returned])
    if errors:
        raise next((error for error in errors if not isinstance(error, Interrupted)), errors[0])
    return [returned[number] for number in range(len(trainings))]


def _place(request: Request) -> Place:
    """Where in its run a request stands."""
    trainer = request.trainer
    return (STAGES.index(trainer.name), trainer.progress.step)


def check_alike(configs: Sequence[RunConfig]) -> None:
    """Refuse runs that cannot be one ensemble: they may differ in seed, data, rates, weight decay and mask ratio."""
    for field in ("model", "engine", "pretrain", "finetune"):
        kinds = {_common(getattr(config, field)) for config in configs}
        if len(kinds) > 1:
            raise NotApplicableError(
                f"the runs differ in {field}, so they cannot be trained together",
                hint="they may differ in seed, data, learning rate, schedule, weight decay, mask ratio and epochs",
            )
    if configs[0].model.backbone is not None:
        raise NotApplicableError("a Hugging Face backbone cannot be stacked into an ensemble", hint=NO_TWIN)
    if not configs[0].model.mixer.layer.can_be_stacked():
        raise NotApplicableError(
            f"mixer {choice_name(MIXERS, configs[0].model.mixer)!r} cannot be stacked into an ensemble", hint=NO_TWIN
        )
    if configs[0].model.padding == "attended" and configs[0].engine.batching == "longest":
        raise NotApplicableError(
            "members would see each other's padding: model.padding is 'attended' and engine.batching 'longest'",
            hint="train them side by side, or set one of the two otherwise",
        )
    if configs[0].engine.mode in ("compiled", "graph"):
        raise NotApplicableError(
            f"engine.mode {configs[0].engine.mode!r} trains one run at a time", hint="leave it at auto"
        )
    if configs[0].engine.on_nan != "stop":
        raise NotApplicableError(
            f"engine.on_nan {configs[0].engine.on_nan!r} goes by one run, and members of an ensemble update together",
            hint="leave it at stop, or train the seeds side by side",
        )


def _common(part: object) -> object:
    """A part of a run's settings with everything blanked in which members of an ensemble may differ."""
    if not isinstance(part, Phase):
        return part
    objective = part.objective
    if isinstance(objective, MaskedReconstruction):
        objective = dataclasses.replace(objective, ratio=0.5)
    plain = Optimizer()
    rates = {name: getattr(plain, name) for name in RATES}
    optimizer = dataclasses.replace(part.optimizer, **rates)
    return dataclasses.replace(
        part, objective=objective, optimizer=optimizer, epochs=1, task=None, patience=None, selection="objective"
    )
