"""Oriented textures: the class can only be read from interactions of neighbouring pixels.

Each image is a patch of a stationary Gaussian random field stretched along one of C orientations. Patches are
standardised one by one, so no statistic of single pixels tells the class, unless ``shortcut`` adds one.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ConfigError
from attnprobe.tasks.data import Data, Outline, Spec, Split
from attnprobe.tasks.derived.subset import TrainingSubset

MOST = 1e6  # a pixel's size, in standard deviations: far more, and float32 overflows in the model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Textures(TrainingSubset):
    side: int = 10  # pixels; sequences have side * side positions
    classes: int = 4  # orientations pi * c / classes
    along: float = 3.0  # correlation length along the orientation, pixels
    across: float = 0.8  # correlation length across it, pixels
    # every class adds this times its own pattern of one random sign per pixel: single pixels then tell the class, too
    shortcut: float = 0.0
    # the pixels of all images stand in one random order of this seed: what was near is no longer; None = row by row
    pixel_order: int | None = None
    n_train: int = 1000  # number of training samples; another gives other images: for nested sets use fraction
    n_validation: int = 500  # number of validation samples
    n_test: int = 2000  # number of test samples
    data_seed: int = 0  # of the drawn data; apart from the seed of the run

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "side", "classes", "along", "across", "n_train", "n_validation", "n_test")
        require(self.side >= 2, "side", f"must be at least 2 pixels, got {self.side}")
        require(self.classes >= 2, "classes", f"must be at least 2, got {self.classes}")
        require(self.shortcut >= 0, "shortcut", f"must not be negative, got {self.shortcut}")
        order = self.pixel_order is None or self.pixel_order >= 0
        require(order, "pixel_order", f"must not be negative, got {self.pixel_order}")
        require(self.data_seed >= 0, "data_seed", f"must not be negative, got {self.data_seed}")

    def load(self, data_dir: Path | None = None) -> Data:
        # One generator per split: the test images do not change with the number of training images.
        *generators, signs = np.random.default_rng(self.data_seed).spawn(4)
        patterns = self.shortcut * signs.choice((-1.0, 1.0), (self.classes, self.side**2))
        sizes = (self.n_train, self.n_validation, self.n_test)
        train, validation, test = (self._split(n, patterns, g) for n, g in zip(sizes, generators, strict=True))
        return self.apply(Data(spec=self._spec(), train=train, validation=validation, test=test))

    def outline(self) -> Outline:
        return self._outline(self._spec(), self.n_train, self.n_validation, self.n_test)

    def _spec(self) -> Spec:
        return Spec(length=self.side**2, classes=self.classes, grid=(self.side, self.side))

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what is not finite is refused
    def _split(self, n: int, patterns: np.ndarray, generator: np.random.Generator) -> Split:
        """patterns: (classes, side * side), what every class adds to its patches."""
        labels = generator.permutation(np.arange(n) % self.classes)
        amplitude = np.stack([self._amplitude(np.pi * c / self.classes) for c in range(self.classes)])
        canvas = 2 * self.side
        noise = generator.standard_normal((n, canvas, canvas))
        field = np.fft.ifft2(np.fft.fft2(noise) * amplitude[labels]).real[:, : self.side, : self.side]
        field -= field.mean((1, 2), keepdims=True)
        field /= field.std((1, 2), keepdims=True)
        pixels = field.reshape(n, -1) + patterns[labels]
        if self.pixel_order is not None:
            pixels = pixels[:, np.random.default_rng(self.pixel_order).permutation(self.side**2)]
        if not np.abs(pixels).max() < MOST:  # nor NaN, where the correlation leaves nothing that varies
            reason = "pixels are infinite or alike with this task.along, task.across or task.shortcut"
            raise ConfigError(reason, hint="choose correlation lengths within the image, and a shortcut of about 1")
        inputs = torch.from_numpy(pixels[..., None].astype(np.float32))
        return Split(inputs=inputs, labels=torch.from_numpy(labels.astype(np.int64)))

    def _amplitude(self, angle: float) -> np.ndarray:
        """exp(-pi^2 ((along u)^2 + (across v)^2)) on the frequencies of a canvas twice as large as the crop.

        u and v are cycles per pixel along and across the orientation; the larger canvas keeps opposite edges of the
        crop independent although the field is periodic.
        """
        frequency = np.fft.fftfreq(2 * self.side)
        y, x = np.meshgrid(frequency, frequency, indexing="ij")
        u = x * np.cos(angle) + y * np.sin(angle)
        v = -x * np.sin(angle) + y * np.cos(angle)
        return np.exp(-(np.pi**2) * ((self.along * u) ** 2 + (self.across * v) ** 2))
