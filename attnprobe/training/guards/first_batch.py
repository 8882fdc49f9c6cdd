"""The first batch of a phase in the run's arithmetic, and in float32, eagerly, with attention by the formula.

What a check of single kernels cannot see shows here: a model whose sums bfloat16 cannot hold, a compiler that computes
something else, a kernel that is wrong at this very shape. The loss and the gradient of all parameters are compared,
before anything is updated; nothing of the model is changed.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from attnprobe.errors import RunError, lacks_memory
from attnprobe.run import Precision
from attnprobe.tasks import Batch
from attnprobe.training.loop import Trainer
from attnprobe.training.updates.arithmetic import process_settings
from attnprobe.training.updates.steppers import Eager, arithmetic

# Largest deviation of the gradient, as a share of its norm, and of the loss, as a share of itself. Untrained models of
# both phases of nine small presets (attention, in windows too, S4, S4D, DLR, linear) had at most 2e-7 and 1e-7 in
# float32, 0.04 and 0.004 in bfloat16, whose numbers have 8 bits. The bounds leave room for larger models, and for
# trained ones, whose gradients are small.
GRADIENT: dict[Precision, float] = {"float32": 1e-2, "tf32": 0.1, "bfloat16": 0.5}
LOSS: dict[Precision, float] = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 0.1}
SMALL_LOSS = 0.1  # of a model that has learned its task before the phase; what is below counts as so much
SCORES = 2**28  # bytes of scores, of all layers, that the formula may keep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deviation:
    """Of the run's arithmetic from the reference."""

    own_loss: float
    loss: float  # of the reference
    gradient: float  # norm of the difference over the reference's norm
    sequences: int
    against: str

    @property
    def of_loss(self) -> float:
        return abs(self.own_loss - self.loss) / max(abs(self.loss), SMALL_LOSS)


def check_first_batch(trainer: Trainer) -> dict[str, Any]:
    """What the manifest keeps of the comparison; RunError if the run's arithmetic is not to be trusted.

    Where the reference is no finite number itself, the model is to blame and not the arithmetic: nothing is said.
    """
    try:
        found = deviation(trainer)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        return {"not_compared": "not enough memory for the reference"}
    found = trainer.world.broadcast(found)  # all processes decide alike
    if not (math.isfinite(found.loss) and not math.isnan(found.gradient)):
        return {"not_compared": "loss or gradient of the reference is not finite"}
    precision = trainer.engine.precision
    if not (found.of_loss <= LOSS[precision] and found.gradient <= GRADIENT[precision]):
        way = f"{precision}, {trainer.choice.mode}, attention {trainer.engine.attention}"
        raise RunError(
            f"the {trainer.name} phase cannot be trained in {way}: on its first batch the loss is {found.own_loss:.4g} "
            f"where float32 gives {found.loss:.4g}, and the gradient is off by {found.gradient:.0%} of its norm "
            f"(at most {GRADIENT[precision]:.0%})",
            hint="use --precision float32 --mode eager; if that is refused, too, -s engine.attention=math",
        )
    return {
        "against": found.against, "sequences": found.sequences, "loss": found.of_loss, "gradient": found.gradient,
    }  # fmt: skip


def deviation(trainer: Trainer) -> Deviation:
    """Compare both on the phase's first batch, or on as many of its sequences as the formula has room for."""
    stepper, engine = trainer.stepper, trainer.engine
    batch = trainer.world.shard(trainer.batches(0)[0])
    whole = len(batch)
    fitting = int(SCORES // max(1, score_bytes(trainer, batch) // whole))
    formula = fitting > 0 and (fitting >= whole or trainer.choice.mode != "compiled")
    if formula and fitting < whole:
        batch = first(batch, fitting)
    reference = dataclasses.replace(engine, precision="float32", attention="math" if formula else engine.attention)
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    try:
        with process_settings(engine):
            with stepper.arithmetic():
                losses = stepper.losses(batch, 0)
            own_loss, own = loss_and_gradient(trainer, losses.mean())
        with process_settings(reference):
            with arithmetic(trainer.device, reference):
                losses = Eager.losses(stepper, batch, 0)
            loss, right = loss_and_gradient(trainer, losses.mean())
    finally:
        for name, buffer in trainer.model.named_buffers():
            buffer.copy_(buffers[name])
    apart = float((own - right).norm() / right.norm().clamp(min=1e-30))
    if bool(right.isfinite().all()) and not math.isfinite(apart):
        apart = math.inf
    against = f"float32, eager, attention {reference.attention}"
    return Deviation(own_loss=own_loss, loss=loss, gradient=apart, sequences=len(batch), against=against)


def loss_and_gradient(trainer: Trainer, loss: Tensor) -> tuple[float, Tensor]:
    """The loss, and its gradient along all parameters that are trained, in one axis of float64."""
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(loss.detach()), torch.cat([g.flatten().double() for g in found if g is not None])


def score_bytes(trainer: Trainer, batch: Batch) -> int:
    """Bytes of the scores of all layers in float32; nothing for mixers that have none."""
    model = trainer.model.config
    if not model.has_scores:
        return 0
    squares, length = model.mixer.squares(batch.inputs.shape[2 if trainer.model.spec.pairs else 1] + 1)
    sequences = len(batch) * squares * (2 if trainer.model.spec.pairs else 1)
    return 4 * model.layers * sequences * model.heads * length**2


def first(batch: Batch, n: int) -> Batch:
    valid = None if batch.valid is None else batch.valid[:n]
    return Batch(inputs=batch.inputs[:n], labels=batch.labels[:n], sample=batch.sample[:n], valid=valid)
