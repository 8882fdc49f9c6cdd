"""Fashion-MNIST from the original idx files: 28 x 28 grey images of ten kinds of clothing (Xiao et al. 2017)."""

import dataclasses
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from attnprobe.config import require, require_positive
from attnprobe.errors import ArtifactError
from attnprobe.tasks.cache import cache_dir
from attnprobe.tasks.data import Data, Spec, Split

SIDE, CLASSES = 28, 10
N_TRAIN, N_TEST, N_VALIDATION = 60_000, 10_000, 5_000
SPLIT_SEED = 42
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HINT = "apt-get install dataset-fashion-mnist, or put the four .gz files into $ATTNPROBE_DATA/fashion-mnist"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionMNIST:
    side: int = SIDE  # 28, or a divisor of it: images are average-pooled and rounded back to grey levels
    n_train: int = N_TRAIN - N_VALIDATION  # smaller training sets are prefixes of larger ones

    def __post_init__(self) -> None:
        require_positive(self, "side", "n_train")
        divisors = [d for d in range(2, SIDE + 1) if SIDE % d == 0]
        require(self.side in divisors, "side", f"must be one of {', '.join(map(str, divisors))}, got {self.side}")
        limit = N_TRAIN - N_VALIDATION
        require(self.n_train <= limit, "n_train", f"can be at most {limit} (5000 images validate), got {self.n_train}")

    def load(self, data_dir: Path | None = None) -> Data:
        folder = find_folder(data_dir)
        images, labels = (
            read_idx(folder / f"train-{kind}-ubyte.gz", N_TRAIN) for kind in ("images-idx3", "labels-idx1")
        )
        order = np.random.RandomState(SPLIT_SEED).permutation(N_TRAIN)
        chosen, held_out = order[: self.n_train], order[N_TRAIN - N_VALIDATION :]
        train = self._split(images[chosen], labels[chosen])
        validation = self._split(images[held_out], labels[held_out])
        test_images, test_labels = (
            read_idx(folder / f"t10k-{kind}-ubyte.gz", N_TEST) for kind in ("images-idx3", "labels-idx1")
        )
        # Over all candidates, so that the input scale does not change with the number of training images.
        values = self._split(
            images[order[: N_TRAIN - N_VALIDATION]], labels[order[: N_TRAIN - N_VALIDATION]]
        ).inputs.double()
        spec = Spec(
            length=self.side**2,
            classes=CLASSES,
            levels=256,
            mean=(values.mean().item(),),
            std=(values.std().item(),),
            grid=(self.side, self.side),
        )
        return Data(spec=spec, train=train, validation=validation, test=self._split(test_images, test_labels))

    def _split(self, images: np.ndarray, labels: np.ndarray) -> Split:
        factor = SIDE // self.side
        pooled = images.reshape(-1, self.side, factor, self.side, factor).mean((2, 4)).round().astype(np.uint8)
        return Split(
            inputs=torch.from_numpy(pooled.reshape(len(pooled), -1, 1)),
            labels=torch.from_numpy(labels.astype(np.int64)),
        )


def find_folder(data_dir: Path | None) -> Path:
    """The first of --data-dir, the cache ($ATTNPROBE_DATA) and Debian's folder that holds the files."""
    places = [data_dir] if data_dir else []
    places += [cache_dir() / "fashion-mnist", DEBIAN_FOLDER]
    for place in places:
        if (place / "train-images-idx3-ubyte.gz").exists():
            return place
    looked = ", ".join(map(str, places))
    raise ArtifactError(f"Fashion-MNIST was not found; looked for train-images-idx3-ubyte.gz in {looked}", hint=HINT)


def read_idx(path: Path, count: int) -> np.ndarray:
    """Read one gzipped idx file of unsigned bytes and check its magic number, dimensions, size and label range.

    Returns (count, 28, 28) images or (count,) labels.
    """
    shape = (count, SIDE, SIDE) if "images" in path.name else (count,)
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            content = file.read(expected + 1)  # one byte more, to notice files that are too long
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", hint=HINT) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{path} is damaged or truncated: {error}", hint=HINT) from None
    if content[:4] != header[:4]:
        raise ArtifactError(f"{path} has magic number {content[:4].hex()}, expected {header[:4].hex()}", hint=HINT)
    if content[: len(header)] != header:
        found = struct.unpack(f">{len(shape)}I", content[4 : len(header)].ljust(4 * len(shape), b"\0"))
        raise ArtifactError(f"{path} holds an array of shape {found}, expected {shape}", hint=HINT)
    if len(content) != expected:
        raise ArtifactError(
            f"{path} has {'more' if len(content) > expected else 'fewer'} bytes than it announces", hint=HINT
        )
    values = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
    if values.ndim == 1 and values.max() >= CLASSES:
        raise ArtifactError(f"{path} has a label {values.max()}, expected 0 to {CLASSES - 1}", hint=HINT)
    return values
