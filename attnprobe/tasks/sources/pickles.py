"""Reading the pickled batches of CIFAR-10 without executing anything that stands in them.

A pickle is a program that may call any importable function. These files need exactly three names, all for one array of
bytes; the three are answered with inert stand-ins, so not even numpy sees what the file says, and every other name is
refused.
"""

import io
import pickle
from typing import Any

import numpy as np

from attnprobe.errors import ArtifactError

ARRAY = "array type"  # stands for numpy.ndarray where the pickle names it


class Bytes:
    """What numpy's reconstruction of an array becomes: its shape and its bytes, or nothing."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not ARRAY:
            raise pickle.UnpicklingError("an array of an unknown type")
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, DType) or not isinstance(content, bytes) or fortran:
            raise pickle.UnpicklingError("an array that is not made of bytes in row order")
        self.array = np.frombuffer(content, np.uint8).reshape(shape)


class DType:
    """numpy.dtype, for unsigned bytes only."""

    def __init__(self, name: object, *flags: object) -> None:
        if name != b"u1":
            raise pickle.UnpicklingError(f"an array of type {name!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and flags: nothing that bytes need."""


ALLOWED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): Bytes,
    ("numpy", "ndarray"): ARRAY,
    ("numpy", "dtype"): DType,
}


class Restricted(pickle._Unpickler):  # the Python one: the C one lets a few bytes ask for gigabytes of memo
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which data do not need")
        return ALLOWED[module, name]


def read_batch(content: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (n, 3072) uint8 and labels (n,) of one pickled CIFAR batch; ``origin`` names it in messages."""
    try:
        batch = Restricted(io.BytesIO(content), encoding="bytes").load()
        images, labels = batch[b"data"].array, batch[b"labels"]
        if not isinstance(images, np.ndarray) or not isinstance(labels, list):
            raise pickle.UnpicklingError("no images or no labels")
        if not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise pickle.UnpicklingError("a label is not a small whole number")
    except Exception as error:  # a damaged pickle can fail in any way
        raise ArtifactError(f"{origin} is not a batch of CIFAR-10: {error or type(error).__name__}") from None
    return images, np.array(labels, np.uint8)
