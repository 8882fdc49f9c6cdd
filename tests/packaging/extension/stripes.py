"""Black and white stripes in noise: the class is how wide they are."""

import dataclasses
from pathlib import Path

import torch

from attnprobe.config import require_positive
from attnprobe.tasks.data import Data, Outline, Spec, Split
from attnprobe.tasks.derived.subset import TrainingSubset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stripes(TrainingSubset):
    """Stripes of 1 or 3 positions."""

    length: int = 23  # positions
    noise: float = 0.5  # its standard deviation
    samples: int = 30  # of each of the three splits

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "length", "samples")

    def load(self, data_dir: Path | None = None) -> Data:
        train, validation, test = (self._split(seed) for seed in range(3))
        return self.apply(Data(spec=self._spec(), train=train, validation=validation, test=test))

    def outline(self) -> Outline:
        return self._outline(self._spec(), self.samples, self.samples, self.samples)

    def _spec(self) -> Spec:
        return Spec(length=self.length, classes=2)

    def _split(self, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(self.samples) % 2
        first = torch.randint(6, (self.samples, 1), generator=generator)
        sign = 1.0 - 2 * ((torch.arange(self.length) + first) // (1 + 2 * labels[:, None]) % 2)
        inputs = sign + self.noise * torch.randn(sign.shape, generator=generator)
        return Split(inputs=inputs[..., None], labels=labels)
