"""Who competes: ourselves, and the plain torch loop that most people write, as it is and compiled.

A peer trains one model, step after step, through ``run``. Those in this file start from our model's weights.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attnprobe.bench.problem import CLASSES, LEARNING_RATE, MEAN, STD, Problem
from attnprobe.machine import synchronise
from attnprobe.masking import bernoulli_mask
from attnprobe.models.positions import sinusoidal_table
from attnprobe.run import Engine


class Peer(Protocol):
    losses: list[Tensor]  # so far, on the device

    def run(self, steps: int) -> tuple[float, float]:
        """Train ``steps`` further steps; (seconds, CPU seconds of this process) they took, start-up left out."""
        ...


class Ours:
    """The training loop of this package."""

    def __init__(self, problem: Problem, device: torch.device, engine: Engine) -> None:
        self.trainer = problem.trainer(device, engine)
        self.model = self.trainer.model
        self.steps = problem.steps(self.trainer)
        self.losses: list[Tensor] = []

    def run(self, steps: int) -> tuple[float, float]:
        def train() -> None:
            for _ in range(steps):
                epoch, index = next(self.steps)
                loss, count, _ = self.trainer.update(self.trainer.data.train.batch(index), epoch)
                self.trainer.progress.step += 1
                self.losses.append(loss / count)

        return timed(train, self.trainer.device)


class MaskedEncoder(nn.Module):
    """Any encoder (batch, length, d_model) -> the same, between our embedding and our heads; returns the loss."""

    def __init__(self, problem: Problem, encoder: nn.Module) -> None:
        super().__init__()
        self.problem = problem
        self.embedding = nn.Linear(2, problem.d_model)
        self.register_buffer("table", sinusoidal_table(problem.length, problem.d_model))
        self.encoder = encoder
        self.head = nn.Linear(problem.d_model, 1 if problem.loss == "masked" else CLASSES)

    def forward(self, inputs: Tensor, labels: Tensor, hidden: Tensor) -> Tensor:
        target = (inputs.to(self.head.weight.dtype) - MEAN) / STD
        seen = torch.cat([target.masked_fill(hidden[..., None], 0.0), hidden[..., None].to(target.dtype)], dim=-1)
        features = self.encoder(self.embedding(seen) + self.table)
        if self.problem.loss == "label":
            return F.cross_entropy(self.head(features.mean(1)), labels)
        error = (self.head(features) - target).abs().squeeze(-1)
        return (error * hidden).sum() / hidden.sum()

    def mask(self, sample: Tensor, epoch: int) -> Tensor:
        """The positions to hide: the same that our trainer hides; none for the label loss."""
        if self.problem.loss == "label":
            return torch.zeros(len(sample), self.problem.length, dtype=torch.bool, device=sample.device)
        seed, length = self.problem.seed, self.problem.length
        return bernoulli_mask(self.problem.ratio, seed=seed, sample=sample, epoch=epoch, length=length)


class PlainLoop:
    """A DataLoader, zero_grad, backward, step; bfloat16 by autocast if asked for."""

    def __init__(
        self, problem: Problem, model: MaskedEncoder, device: torch.device, precision: str, *, compiled: bool = False
    ) -> None:
        self.model, self.device = model.to(device), device
        self.forward = torch.compile(model, dynamic=False) if compiled else model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=compiled)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        self.batches = batches(problem)
        self.losses: list[Tensor] = []

    def run(self, steps: int) -> tuple[float, float]:
        def train() -> None:
            for _ in range(steps):
                epoch, parts = next(self.batches)
                inputs, labels, sample = (part.to(self.device, non_blocking=True) for part in parts)
                hidden = self.model.mask(sample, epoch)
                with self.autocast:
                    loss = self.forward(inputs, labels, hidden)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.losses.append(loss.detach())

        return timed(train, self.device)


def dataset(problem: Problem) -> TensorDataset:
    split = problem.split()
    return TensorDataset(split.inputs, split.labels, torch.arange(len(split)))


def batches(problem: Problem) -> Iterator[tuple[int, list[Tensor]]]:
    """(epoch, [inputs, labels, sample numbers]) from a DataLoader, in our trainer's order."""
    trainer = problem.trainer(torch.device("cpu"), Engine())
    data, epoch = dataset(problem), 0
    while True:
        order = torch.cat(trainer.batches(epoch).index).tolist()
        for parts in DataLoader(data, batch_size=problem.batch, sampler=order):
            yield epoch, parts
        epoch += 1


def torch_encoder(problem: Problem) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        problem.d_model, problem.heads, problem.d_mlp, 0.0, F.gelu, batch_first=True, norm_first=True
    )
    norm = nn.LayerNorm(problem.d_model)
    return nn.TransformerEncoder(layer, problem.layers, norm=norm, enable_nested_tensor=False)


def with_our_weights(problem: Problem) -> MaskedEncoder:
    """torch's own encoder, starting from the weights of our model."""
    encoder = torch_encoder(problem)
    model, ours = MaskedEncoder(problem, encoder), problem.model()
    head = ours.reconstruction_head if problem.loss == "masked" else ours.label_head
    pairs: list[tuple[nn.Module, nn.Module]] = [  # pyright: ignore[reportAssignmentType]
        (model.embedding, ours.embedding.linear),  # pyright: ignore[reportArgumentType]
        (model.head, head),
        (encoder.norm, ours.norm),  # pyright: ignore[reportArgumentType]
    ]
    for theirs, block in zip(encoder.layers, ours.blocks, strict=True):
        _copy_attention(theirs.self_attn, block.attention)  # pyright: ignore[reportArgumentType]
        names = {"out_proj": "attention.o", "linear1": "up", "linear2": "down", "norm1": "norm1", "norm2": "norm2"}
        for name, own in names.items():
            owner = theirs.self_attn if name == "out_proj" else theirs
            pairs.append((getattr(owner, name), block.get_submodule(own)))
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())
    return model


@torch.no_grad()
def _copy_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    projections = [getattr(ours, name) for name in "qkv"]
    theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
    theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))


def timed(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    synchronise(device)
    start, cpu = time.perf_counter(), time.process_time()
    work()
    synchronise(device)
    return time.perf_counter() - start, time.process_time() - cpu


def make_ours(problem: Problem, device: torch.device, precision: str) -> Ours:
    return Ours(problem, device, Engine(precision="bfloat16" if precision == "bfloat16" else "float32"))


def make_plain(problem: Problem, device: torch.device, precision: str) -> PlainLoop:
    return PlainLoop(problem, with_our_weights(problem), device, precision)


def make_compiled(problem: Problem, device: torch.device, precision: str) -> PlainLoop:
    return PlainLoop(problem, with_our_weights(problem), device, precision, compiled=True)


Maker = Callable[[Problem, torch.device, str], Peer]
