"""The training loop: one phase, from wherever it stands to its end.

The data lives on the device. Each epoch visits a permutation that depends on (seed, phase, epoch) alone, masks come
from counters, and no step waits for the device: sums are read once per epoch. A phase can therefore be stopped between
any two steps and continued bit for bit from its ``Progress``.

A phase is a generator: it asks for one ``Update`` after the other and is told the sums of their losses. Who carries the
updates out is another matter: ``alone`` one by one, ``ensemble.together`` those of several runs at once.
"""

import dataclasses
import math
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch
from torch import Tensor

from attnprobe.models import Transformer
from attnprobe.models.initialisation import generator_for, state_on_cpu
from attnprobe.objectives import EVALUATION
from attnprobe.run import Engine, Phase
from attnprobe.tasks import Batch, Data
from attnprobe.training.buckets import Batches, training_batches, trims
from attnprobe.training.distributed import World
from attnprobe.training.evaluation import evaluate_phase, means
from attnprobe.training.guards import losses as guard
from attnprobe.training.guards.losses import DivergedError
from attnprobe.training.monitor import Monitor
from attnprobe.training.saved.checkpoint import check_tensors
from attnprobe.training.saved.resuming import check_progress, checked_optimizer
from attnprobe.training.selection import Numbers, Plateau, is_better, is_exhausted, is_kept, watched
from attnprobe.training.updates.optim import learning_rate, make_optimizer
from attnprobe.training.updates.steppers import STEPPERS, choose_mode, instead

State = dict[str, Tensor]
Returned = TypeVar("Returned")


class Interrupted(Exception):  # noqa: N818 - a request that was carried out, not an error
    """Training was asked to stop between two steps; everything needed to go on has been saved."""


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Where a phase stands; with the model's and the optimizer's state all that is needed to continue exactly."""

    step: int = 0  # updates made so far in this phase
    sums: Tensor | None = None  # (3,) loss, count, correct of the running epoch
    losses: Tensor | None = None  # (steps per epoch,) mean losses of its updates, see guards.losses
    before: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0))  # the last ones of the epochs before
    restarts: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # each has halved the learning rate
    best_epoch: int = -1  # the one that is kept, from 0
    improved: int = -1  # the last one that was better than all before it
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)  # of selection.Plateau
    best_numbers: Numbers = dataclasses.field(default_factory=dict)
    best_state: State = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """The next step of a phase: what is to be trained, and on what. Its answer: (3,) sums of loss, count, correct."""

    trainer: "Trainer"
    batch: Batch
    epoch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseEnd:
    """All updates of a phase are made; a moment at which runs that go in step can save together. It has no answer."""

    trainer: "Trainer"


Request = Update | PhaseEnd
Training = Generator[Request, Tensor | None, Returned]


def alone(training: Training[Returned]) -> Returned:
    """Carry out each update as it is asked for; returns what the generator returns. It hears what an update raises."""
    try:
        asked = next(training)
        while True:
            try:
                made = asked.trainer.update(asked.batch, asked.epoch) if isinstance(asked, Update) else None
            except Exception as error:
                asked = training.throw(error)
            else:
                asked = training.send(made)
    except StopIteration as end:
        return end.value


class Trainer:
    """Trains one model through one phase."""

    def __init__(
        self,
        model: Transformer,
        data: Data,
        name: str,
        phase: Phase,
        engine: Engine,
        *,
        seed: int,
        world: World | None = None,  # the processes that share the run; by default those this one has joined
    ) -> None:
        self.model, self.data, self.name, self.phase, self.engine, self.seed = model, data, name, phase, engine, seed
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(phase.optimizer, model)
        self.batch_size = min(phase.batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch_size
        self.steps = self.steps_per_epoch * phase.epochs
        self.progress = Progress()
        self.trim = trims(data.train, model.config, engine)
        self.world = world or World()
        self.world.check(self.batch_size)
        self.choice = choose_mode(engine, self.device, one_shape=not self.trim, processes=self.world.size)
        self.stepper = STEPPERS[self.choice.mode](model, self.optimizer, phase, engine, self.world, seed=seed)

    def fit(
        self,
        monitor: Monitor,
        *,
        should_stop: Callable[[], bool],
        save: Callable[[bool], None],
        watch: Callable[[int], None] = lambda step: None,
    ) -> Training[None]:
        """Train to the end of the phase and leave the best validation epoch's parameters in the model.

        ``should_stop`` is asked between steps; if it says yes, or if Interrupted is thrown in instead of an answer,
        ``save(True)`` is called and Interrupted is raised. ``save(False)`` is called before each step and decides
        itself whether it is time to write; ``watch`` hears of every update that was made: how many there are by now.
        DivergedError if a loss is no finite number: on a CPU at once, on a GPU by the end of the epoch.
        """
        state = self.progress
        if self.choice.warning is not None:
            monitor.message(f"{self.name}: {self.choice.warning}")
        monitor.phase_started(self.name, self.phase, self.steps * self.batch_size, state.step * self.batch_size)
        while state.step < self.steps and not self._is_exhausted():
            epoch, first = divmod(state.step, self.steps_per_epoch)
            batches = self.batches(epoch)
            state.sums = torch.zeros(3, device=self.device) if state.sums is None else state.sums
            if state.losses is None:
                state.losses = guard.no_losses(self.steps_per_epoch, self.device)
            for position in range(first, self.steps_per_epoch):
                try:
                    if self.world.stops(should_stop()):
                        raise Interrupted
                    save(False)
                    sums = yield Update(trainer=self, batch=batches[position], epoch=epoch)
                except Interrupted:
                    save(True)
                    raise
                assert sums is not None, "an update is answered with its sums"
                self._count(sums, position)
                self._say_what_failed(monitor)
                monitor.stepped(self.batch_size)
                watch(state.step)
            stood_out = self._judge_losses(epoch, monitor)
            numbers = self._finish_epoch(epoch, state)
            monitor.epoch_finished(self.name, epoch, numbers | stood_out)
        yield PhaseEnd(trainer=self)
        self.model.load_state_dict(state.best_state)

    def _count(self, sums: Tensor, position: int) -> None:
        """An update was made: add up its sums, unless it was left out, which a loss that is no number tells."""
        state = self.progress
        assert state.sums is not None
        assert state.losses is not None
        guard.note(state.losses, position, sums)
        state.step += 1
        if self.engine.on_nan == "skip":
            sums = torch.where(sums[0].isfinite(), sums, 0)
        state.sums += sums
        if self.device.type == "cpu" and not math.isfinite(float(state.losses[position])):
            self.check_losses()

    def check_losses(self) -> None:
        """DivergedError if an update of this epoch that is not left out has a loss like that; waits for the device."""
        state = self.progress
        if state.losses is None or self.engine.on_nan == "skip":
            return
        bad = guard.first_bad(state.losses)
        if bad is not None:
            epoch = (state.step - 1) // self.steps_per_epoch
            update, loss = epoch * self.steps_per_epoch + bad + 1, float(state.losses[bad])
            message = f"the {self.name} phase diverged: update {update} (epoch {epoch + 1}) has loss {loss}"
            raise DivergedError(message, update)

    def check_finite(self) -> None:
        """DivergedError unless losses, parameters and the optimizer's averages are finite, so that they may be saved;
        waits for the device.
        """
        self.check_losses()
        moments = [value for own in self.optimizer.state.values() for value in own.values()]
        if not guard.all_finite([*self.model.state_dict().values(), *moments]):
            step = self.progress.step
            message = f"the {self.name} phase diverged: after update {step} some parameters are not finite"
            raise DivergedError(message, step)

    def _judge_losses(self, epoch: int, monitor: Monitor) -> Numbers:
        """Say which losses of the epoch stand out, and how many updates were left out; what metrics add of that."""
        state = self.progress
        self.check_losses()
        assert state.losses is not None
        found: Numbers = {}
        if self.engine.on_nan == "skip":
            left = found["left_out"] = guard.bad_count(state.losses)
            said = f"{left} of {self.steps_per_epoch} updates of epoch {epoch + 1} were left out"
            if left == self.steps_per_epoch:
                raise DivergedError(f"the {self.name} phase diverged: {said}", state.step - left + 1)
            if left:
                monitor.message(f"{self.name}: {said}: their loss or gradient was no finite number")
        high = guard.spikes(state.losses, state.before)
        if high:
            found["loss_spikes"] = len(high)
            monitor.message(f"{self.name}: {guard.told(high, epoch, self.steps_per_epoch)}")
        state.before, state.losses = guard.latest(state.losses, state.before), None
        return found

    def _say_what_failed(self, monitor: Monitor) -> None:
        """Once, if the stepper could not work in the mode that was chosen."""
        if self.stepper.failure is not None and self.choice.mode != "eager":
            self.choice = instead(self.choice.mode, self.stepper.failure)
            monitor.message(f"{self.name}: {self.choice.warning}")

    def state_dict(self) -> dict[str, Any]:
        """A copy to be saved. Members of an ensemble hold views, of which torch.save would write everybody's whole."""
        optimizer = self.optimizer.state_dict()
        moments = {number: {k: v.clone() for k, v in own.items()} for number, own in optimizer["state"].items()}
        return {
            "model": state_on_cpu(self.model),
            "optimizer": optimizer | {"state": moments},
            "progress": {f.name: getattr(self.progress, f.name) for f in dataclasses.fields(Progress)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; ValueError, before anything is changed, if it does not fit."""
        own, saved = self.model.state_dict(), state["progress"]
        check_tensors(state["model"], own)
        metric = f"validation_{watched(self.phase)}"
        check_progress(saved, own, steps=self.steps, steps_per_epoch=self.steps_per_epoch, metric=metric)
        Plateau(**saved["plateau"])
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        optimizer = checked_optimizer(state["optimizer"], self.optimizer.state_dict(), parameters)
        self.progress = Progress(**saved)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(optimizer)
        for name in ("sums", "losses"):
            value = getattr(self.progress, name)
            setattr(self.progress, name, None if value is None else value.to(self.device))

    def batches(self, epoch: int) -> Batches:
        """The epoch's batches, which depend on (seed, phase, epoch) alone."""
        generator = generator_for(self.seed, f"order/{self.name}/{epoch}")
        mixed = self.engine.batching == "longest"
        return training_batches(self.data.train, self.batch_size, self.trim, generator, mixed=mixed)

    def update(self, batch: Batch, epoch: int) -> Tensor:
        """One step of the optimizer; returns (3,) sums on the device: loss, count, correct."""
        return self.stepper.update(batch, epoch, self.rate(self.progress.step))

    def rate(self, step: int) -> float:
        """The learning rate of an update, by what is known so far."""
        reductions, epoch = Plateau(**self.progress.plateau).reductions, step // self.steps_per_epoch
        rate = learning_rate(self.phase.optimizer, step, self.steps, epoch=epoch, reductions=reductions)
        return rate * 0.5 ** len(self.progress.restarts)

    def _is_exhausted(self) -> bool:
        """Whether the phase ends before its last epoch; asked anew after an interruption, with the same answer."""
        epochs, begun = divmod(self.progress.step, self.steps_per_epoch)
        return begun == 0 and epochs > 0 and is_exhausted(self.phase, epochs, self.progress.improved)

    def _finish_epoch(self, epoch: int, state: Progress) -> Numbers:
        assert state.sums is not None
        numbers = {f"train_{k}": v for k, v in means(state.sums, self.phase.objective).items()}
        state.sums = None
        masks = EVALUATION - 1 - epoch if self.phase.evaluation_masks == "fresh" else EVALUATION
        split = self.data.validation
        validation = evaluate_phase(
            self.model, split, self.phase, self.engine, seed=self.seed, world=self.world, masks=masks
        )
        numbers |= {f"validation_{k}": v for k, v in validation.items()}
        for key in ("train_loss", "validation_loss"):
            if not math.isfinite(numbers[key]):
                message = f"the {self.name} phase diverged: {key} {numbers[key]} in epoch {epoch + 1}"
                raise DivergedError(message, state.step)
        numbers["lr"] = self.rate(state.step - 1)
        if self.phase.optimizer.schedule == "plateau":
            state.plateau = dataclasses.asdict(Plateau(**state.plateau).after(numbers, self.phase))
        if is_better(numbers, state.best_numbers, self.phase):
            state.improved = epoch
        if is_kept(numbers, state.best_numbers, self.phase):
            state.best_epoch, state.best_numbers = epoch, numbers
            state.best_state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return numbers
