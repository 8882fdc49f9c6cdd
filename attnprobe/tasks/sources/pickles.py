"""Reading the pickled batches of CIFAR-10 without executing anything that stands in them.

A pickle is a program that may call any importable function. These files need a handful of names, all for one array of
bytes; they are answered with inert stand-ins, so not even numpy sees what the file says, and every other name is
refused. The published files were written by Python 2; copies rewritten by Python 3 under NumPy 1 or 2 name the same
things differently.
"""

import io
import pickle
from typing import Any

import numpy as np

from attnprobe.errors import ArtifactError

HINT = "run `attnprobe data verify image`, then get the file again"
ARRAY = "array type"  # stands for numpy.ndarray where the pickle names it


class Bytes:
    """What numpy's reconstruction of an array becomes: its shape and its bytes, or nothing."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not ARRAY:
            raise pickle.UnpicklingError("an array of an unknown type")
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = as_array(content, dtype, shape, "F" if fortran else "C")


class DType:
    """numpy.dtype, for unsigned bytes only."""

    def __init__(self, name: object, *flags: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {name!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and flags: nothing that bytes need."""


def from_buffer(content: object, dtype: object, shape: Any, order: object) -> Bytes:
    """How protocol 5 makes an array."""
    result = Bytes(ARRAY, (0,), b"b")
    result.array = as_array(content, dtype, shape, order)
    return result


def as_array(content: object, dtype: object, shape: Any, order: object) -> np.ndarray:
    if not isinstance(dtype, DType) or not isinstance(content, bytes | bytearray) or order != "C":
        raise pickle.UnpicklingError("an array that is not made of bytes in row order")
    return np.frombuffer(content, np.uint8).reshape(shape)


def encode(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes by the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], object] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Bytes for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): ARRAY,
    ("numpy", "dtype"): DType,
    ("_codecs", "encode"): encode,
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
        # Whoever loaded the published files as text and rewrote them has names of text.
        data, labels = (batch.get(name, batch.get(name.decode())) for name in (b"data", b"labels"))
        images = data.array if isinstance(data, Bytes) else None
        if images is None or not isinstance(labels, list):
            raise pickle.UnpicklingError("no images or no labels")
        if not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise pickle.UnpicklingError("a label is not a small whole number")
    except Exception as error:  # a damaged pickle can fail in any way
        reason = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise ArtifactError(f"{origin} is not a batch of CIFAR-10: {reason}", hint=HINT) from error
    return images, np.array(labels, np.uint8)
