"""Values as tensors, and what a model must know of their size."""

from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.errors import ArtifactError

BLOCK = 1 << 22  # values that are added up together


def values(path: Path, inputs: np.ndarray, real: np.ndarray | None) -> np.ndarray:
    """(n, length, channels) uint8 as they are, else float32; zero behind the end. real: (n, length) bool."""
    if inputs.dtype != np.uint8:
        with np.errstate(over="ignore"):
            inputs = inputs.astype(np.float32)
    if real is not None:
        inputs = np.where(real[..., None], inputs, inputs.dtype.type(0))
    if inputs.dtype != np.uint8 and not np.isfinite(inputs).all():
        wrong = ~np.isfinite(inputs)
        samples = int(wrong.any((1, 2)).sum())
        sample, position, _ = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
        message = f"{path}: {samples} samples hold NaN or infinite values, first sample {sample + 1} at {position}"
        raise ArtifactError(message, hint="fill such values or leave the samples out; padding is marked by lengths")
    return np.ascontiguousarray(inputs)


def described(path: Path, stored: np.ndarray, real: np.ndarray | None, train: np.ndarray) -> dict[str, Any]:
    """The fields of ``Spec`` about values: moments over the real positions of all training samples."""
    channels = stored.shape[2]
    count, total, square = 0, np.zeros(channels), np.zeros(channels)
    rows = max(1, BLOCK // stored[0].size)
    shift = stored[train[0], 0].astype(np.float64)  # large means would drown small deviations in their squares
    for start in range(0, len(train), rows):
        block = train[start : start + rows]
        found = stored[block] if real is None else stored[block][real[block]]
        found = found.reshape(-1, channels).astype(np.float64) - shift
        count, total, square = count + len(found), total + found.sum(0), square + (found**2).sum(0)
    variance = np.maximum(square / count - (total / count) ** 2, 0)
    if not variance.any():
        raise ArtifactError(f"{path}: all training values are alike", hint="is it the right array?")
    std = np.where(variance > 0, np.sqrt(variance), 1.0)  # a channel that never varies stays as it is
    mean = shift + total / count
    levels = 256 if stored.dtype == np.uint8 else None
    return {"channels": channels, "levels": levels, "mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
