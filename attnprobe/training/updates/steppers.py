"""How one update is carried out: eagerly (the reference), compiled, or as one CUDA graph."""

import contextlib
import copy
import dataclasses
import shutil
import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from attnprobe.models import Transformer
from attnprobe.models.norms import BatchNorm
from attnprobe.objectives import Losses
from attnprobe.run import Engine, Phase
from attnprobe.tasks import Batch
from attnprobe.training.distributed import World
from attnprobe.training.updates.arithmetic import process_settings
from attnprobe.training.updates.attention_kernels import pinned
from attnprobe.training.updates.optim import scale_of

Mode = Literal["eager", "compiled", "graph"]
WARM_UP = 3  # updates before a graph is captured; their effect is undone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModeChoice:
    mode: Mode
    warning: str | None = None  # what was asked for and cannot be had


def choose_mode(engine: Engine, device: torch.device, *, one_shape: bool, processes: int) -> ModeChoice:
    """What ``engine.mode`` means here. "auto" is the eager path: the others have not been verified on a GPU."""
    if engine.mode in ("auto", "eager"):
        return ModeChoice(mode="eager")
    reason = None
    if engine.mode == "compiled" and device.type == "cpu" and not (shutil.which("c++") or shutil.which("clang++")):
        reason = "there is no C++ compiler"
    if engine.mode == "graph":
        if device.type != "cuda":
            reason = "it needs a CUDA device"
        elif not one_shape:
            reason = "batches are trimmed to different lengths (engine.batching='padded' makes them equal)"
        elif processes > 1:
            reason = "several processes share the run"
    if reason is None:
        return ModeChoice(mode=engine.mode)
    return instead(engine.mode, reason)


def instead(mode: str, reason: str) -> ModeChoice:
    """The eager mode in place of one that is not possible."""
    return ModeChoice(mode="eager", warning=f"engine.mode {mode!r} is not possible: {reason}; training eagerly")


@contextlib.contextmanager
def arithmetic(device: torch.device, engine: Engine) -> Iterator[None]:
    """Within it, the forward pass has the engine's precision and its attention kernel; the backward pass follows."""
    with torch.autocast(device.type, torch.bfloat16, engine.precision == "bfloat16"), pinned(engine.attention):
        yield


class Eager:
    """Forward, backward, update: one after the other, nothing waits for the device."""

    failure: str | None = None  # why updates are carried out eagerly though another way was chosen

    def __init__(
        self, model: Transformer, optimizer: torch.optim.AdamW, phase: Phase, engine: Engine, world: World, *, seed: int
    ) -> None:
        self.model, self.optimizer, self.phase, self.engine = model, optimizer, phase, engine
        self.world, self.seed = world, seed
        self.device = next(model.parameters()).device

    def losses(self, batch: Batch, epoch: int | Tensor) -> Losses:
        return self.phase.objective.losses(self.model, batch, seed=self.seed, epoch=epoch, training=True)

    def update(self, batch: Batch, epoch: int, rate: float) -> Tensor:
        """One step of the optimizer at learning rate ``rate``; (3,) sums on the device: loss, count, correct."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * scale_of(group)
        with process_settings(self.engine):
            return self.compute(self.world.shard(batch), epoch)

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        return arithmetic(self.device, self.engine)

    def compute(self, batch: Batch, epoch: int | Tensor) -> Tensor:
        averages = self._averages()
        with self.arithmetic():
            losses = self.losses(batch, epoch)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.stack(losses.sums())
        if self.world.size == 1:
            (losses.loss.sum() / losses.count.sum().clamp(min=1)).backward()
        else:
            losses.loss.sum().backward()
            sums = self.world.reduce_gradients(self.model.parameters(), sums)
        if self.engine.on_nan == "skip":
            sums = self._left_out_unless_finite(sums, averages)
        if self.phase.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.phase.optimizer.clip)
        self.optimizer.step()
        return sums

    def _averages(self) -> list[tuple[Tensor, Tensor]]:
        """What a forward pass changes, with copies, if an update may be left out."""
        if self.engine.on_nan != "skip":
            return []
        norms = [module for module in self.model.modules() if isinstance(module, BatchNorm)]
        return [(own, own.clone()) for norm in norms for own in (norm.mean, norm.variance)]

    @torch.no_grad()
    def _left_out_unless_finite(self, sums: Tensor, averages: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The sums, NaN if loss or gradients are not finite: the optimizer then changes nothing. Waits for nobody."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        bad = ~(torch.nn.utils.get_total_norm(gradients).isfinite() & sums[0].isfinite())
        self.optimizer.found_inf = bad.float()  # pyright: ignore[reportAttributeAccessIssue] - its fused kernels look
        for own, before in averages:
            own.copy_(torch.where(bad, before, own))
        return torch.where(bad, torch.nan, sums)


class Compiled(Eager):
    """The forward pass with its loss compiled, and with it the backward pass; the optimizer is one kernel anyway."""

    def __init__(self, *arguments, seed: int) -> None:
        super().__init__(*arguments, seed=seed)
        self._losses = torch.compile(super().losses)

    def losses(self, batch: Batch, epoch: int | Tensor) -> Losses:
        if not isinstance(epoch, Tensor):  # a number would be compiled in; filling makes no one wait, copying would
            epoch = torch.full((), epoch, dtype=torch.int64, device=self.device)
        return self._losses(batch, epoch)


class Graph(Eager):
    """The whole update as one CUDA graph, replayed. All batches must have one shape.

    Inputs, epoch and learning rate live in fixed tensors. The updates that warm up the capture are undone.
    """

    def __init__(self, *arguments, seed: int) -> None:
        super().__init__(*arguments, seed=seed)
        self.rates = [torch.zeros((), device=self.device) for _ in self.optimizer.param_groups]
        self.epoch = torch.zeros((), dtype=torch.int64, device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self._use_own_rates()

    def _use_own_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"], group["capturable"] = rate, True

    def _set(self, epoch: int | Tensor, rate: float) -> None:
        self.epoch.fill_(epoch)
        for group, own in zip(self.optimizer.param_groups, self.rates, strict=True):
            own.fill_(rate * scale_of(group))

    def update(self, batch: Batch, epoch: int, rate: float) -> Tensor:
        if self.graph is None and self.failure is None:
            self._set(epoch, rate)
            self._try_to_capture(batch)
        if self.graph is None:
            return super().update(batch, epoch, rate)
        self._set(epoch, rate)
        for name in ("inputs", "labels", "sample", "valid"):
            fixed = getattr(self.batch, name)
            if fixed is not None:
                fixed.copy_(getattr(batch, name), non_blocking=True)
        self.graph.replay()
        return self.sums.clone()

    def _try_to_capture(self, batch: Batch) -> None:
        """Capture the graph; if that fails, leave model and optimizer as they were and note the ``failure``."""
        before = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()["state"]))
        stream = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.device(self.device), process_settings(self.engine):  # streams belong to a device
                self._capture(batch, *before)
        except RuntimeError as error:  # an operation that cannot be captured, or too little memory
            self.graph, self.failure = None, (str(error).splitlines() or [type(error).__name__])[0]
            torch.cuda.set_stream(stream)  # torch stays on the capture's own when its end fails
            self.optimizer.zero_grad(set_to_none=True)
            self._restore(*before)
            for number, parameter in enumerate(self._parameters()):
                if number not in before[1]:
                    self.optimizer.state.pop(parameter, None)
            for group in self.optimizer.param_groups:
                group["capturable"] = False

    def _capture(self, batch: Batch, model: dict[str, Tensor], moments: dict[int, dict[str, Tensor]]) -> None:
        self._use_own_rates()  # a resumed optimizer has brought others
        valid = None if batch.valid is None else batch.valid.clone()
        self.batch = Batch(
            inputs=batch.inputs.clone(), labels=batch.labels.clone(), sample=batch.sample.clone(), valid=valid
        )
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True")  # meant for those who never capture
            for _ in range(WARM_UP):
                self.compute(self.batch, self.epoch)
        torch.cuda.current_stream(self.device).wait_stream(side)
        self._restore(model, moments)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        # Torch's own stream for captures belongs to whichever device was the current one when it was first used.
        with torch.cuda.graph(graph, stream=side):
            self.sums = self.compute(self.batch, self.epoch)
        self.graph = graph

    def _parameters(self) -> list[Tensor]:
        """In the order in which the optimizer's state_dict numbers them."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def _restore(self, model: dict[str, Tensor], moments: dict[int, dict[str, Tensor]]) -> None:
        """Undo the warm-up in place: the graph must find its tensors where they were."""
        self.model.load_state_dict(model)
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if number in moments:
                    value.copy_(moments[number][name])
                else:
                    value.zero_()


STEPPERS: dict[Mode, type[Eager]] = {"eager": Eager, "compiled": Compiled, "graph": Graph}
