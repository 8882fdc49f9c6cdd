"""What every peer trains: batches of random grey-level sequences, one objective, one optimizer."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.objectives import Classification, MaskedReconstruction, Objective
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.loop import Trainer

CLASSES, LEVELS = 4, 256
MEAN, STD = 127.5, 73.9  # of uniform grey levels 0 .. 255
LEARNING_RATE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    length: int
    batch: int
    d_model: int = 64
    layers: int = 2
    heads: int = 4
    d_mlp: int = 128
    ratio: float = 0.5
    batches: int = 8  # per epoch
    seed: int = 0
    loss: Literal["masked", "label"] = "masked"  # l1 at hidden positions, or cross-entropy of a pooled readout

    @property
    def name(self) -> str:
        width = f"d{self.d_model} {self.layers}L {self.heads}h mlp{self.d_mlp}"
        return f"L{self.length} {width} b{self.batch} {self.loss}"

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.length * self.batch

    @property
    def spec(self) -> Spec:
        return Spec(length=self.length, classes=CLASSES, levels=LEVELS, mean=(MEAN,), std=(STD,))

    def split(self) -> Split:
        generator = torch.Generator().manual_seed(self.seed)
        n = self.batch * self.batches
        inputs = torch.randint(0, LEVELS, (n, self.length, 1), generator=generator, dtype=torch.uint8)
        return Split(inputs=inputs, labels=torch.randint(0, CLASSES, (n,), generator=generator))

    def model(self) -> Transformer:
        config = TransformerConfig(d_model=self.d_model, layers=self.layers, heads=self.heads, d_mlp=self.d_mlp)
        return make_model(config, self.spec, "values", seed=self.seed)

    def trainer(self, device: torch.device, engine: Engine) -> Trainer:
        """Our own trainer on this problem."""
        split = self.split()
        data = Data(spec=self.spec, train=split, validation=split, test=split).to(device)
        objective: Objective = MaskedReconstruction(ratio=self.ratio) if self.loss == "masked" else Classification()
        optimizer = Optimizer(lr=LEARNING_RATE, schedule="constant", warmup=0)
        phase = Phase(objective=objective, batch_size=self.batch, epochs=1_000_000, optimizer=optimizer)
        return Trainer(self.model().to(device), data, "bench", phase, engine, seed=self.seed)

    def steps(self, trainer: Trainer) -> Iterator[tuple[int, Tensor]]:
        """(epoch, sample numbers) of step 0, 1, 2, ... without end, as our trainer draws them."""
        epoch = 0
        while True:
            for index in trainer.batches(epoch).index:
                yield epoch, index
            epoch += 1
