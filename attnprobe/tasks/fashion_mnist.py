"""Fashion-MNIST from the original idx files: 28 x 28 grey images of ten kinds of clothing (Xiao et al. 2017)."""

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.tasks.data import Data, Spec, Split
from attnprobe.tasks.derived.pooling import require_side, shorten
from attnprobe.tasks.derived.subset import Subset, nested_prefix
from attnprobe.tasks.sources.catalogue import TASK_SOURCES
from attnprobe.tasks.sources.copies import SYSTEM_FOLDER, find

SIDE, CLASSES = 28, 10
N_TRAIN, N_TEST, N_VALIDATION = 60_000, 10_000, 5_000
SPLIT_SEED = 42
DEBIAN_FOLDER = SYSTEM_FOLDER / "fashion-mnist"
HINT = "run `attnprobe data verify fashion-mnist`, then get the file again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionMNIST(Subset):
    """55 000 of the training images train, the other 5 000 validate; the test images are the published ones."""

    side: int = SIDE  # 28, or a divisor of it: images are average-pooled and rounded back to grey levels

    def __post_init__(self) -> None:
        super().__post_init__()
        require_side(self.side, SIDE)

    def load(self, data_dir: Path | None = None) -> Data:
        _, folder = find(TASK_SOURCES["fashion-mnist"], data_dir)
        images, labels = self._read(folder, "train", N_TRAIN)
        order = np.random.RandomState(SPLIT_SEED).permutation(N_TRAIN)
        chosen, held_out = order[: N_TRAIN - N_VALIDATION], order[N_TRAIN - N_VALIDATION :]
        # Stored so that the nested subsets are prefixes of this permutation.
        chosen = chosen[np.argsort(nested_prefix(len(chosen), len(chosen)))]
        train = make_split(images[chosen], labels[chosen])
        # Over all candidates, so that the input scale does not change with the number of training images.
        values = train.inputs.double()
        spec = Spec(
            length=self.side**2,
            classes=CLASSES,
            levels=256,
            mean=(values.mean().item(),),
            std=(values.std().item(),),
            grid=(self.side, self.side),
        )
        validation = make_split(images[held_out], labels[held_out])
        test = make_split(*self._read(folder, "t10k", N_TEST))
        return self.apply(Data(spec=spec, train=train, validation=validation, test=test))

    def _read(self, folder: Path, stem: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (count, side, side) and labels (count,)."""
        images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", count)
        labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", count)
        return shorten(images, SIDE // self.side, axes=(1, 2)), labels


def make_split(images: np.ndarray, labels: np.ndarray) -> Split:
    inputs = torch.from_numpy(images.reshape(len(images), -1, 1))
    return Split(inputs=inputs, labels=torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path, count: int) -> np.ndarray:
    """Read one gzipped idx file of unsigned bytes and check its magic number, dimensions, size and label range.

    Returns (count, 28, 28) images or (count,) labels.
    """
    shape = (count, SIDE, SIDE) if "images" in path.name else (count,)
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    with reading(path, HINT), gzip.open(path) as file:
        content = file.read(expected + 1)  # one byte more, to notice files that are too long
    if content[:4] != header[:4]:
        raise ArtifactError(f"{path} has magic number {content[:4].hex()}, expected {header[:4].hex()}", hint=HINT)
    if content[: len(header)] != header:
        found = np.ndarray(len(shape), ">u4", content[4 : len(header)].ljust(4 * len(shape), b"\0"))
        found = tuple(found.tolist())
        raise ArtifactError(f"{path} holds an array of shape {found}, expected {shape}", hint=HINT)
    if len(content) != expected:
        raise ArtifactError(
            f"{path} has {'more' if len(content) > expected else 'fewer'} bytes than it announces", hint=HINT
        )
    values = np.ndarray(shape, np.uint8, content, offset=len(header)).copy()  # tensors must be writable
    if values.ndim == 1 and values.max() >= CLASSES:
        raise ArtifactError(f"{path} has a label {values.max()}, expected 0 to {CLASSES - 1}", hint=HINT)
    return values
