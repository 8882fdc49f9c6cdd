"""Sequences of tokens as tensors: ids above those that have a meaning of their own, padded to one length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attnprobe.errors import ArtifactError

PAD_ID = 1  # behind the end of a sequence; 0 hides a position
SHIFT = 2  # a person's token t becomes t + SHIFT
MOST_TOKENS = 2**20  # different ones


def smallest_type(ids: int) -> type[np.signedinteger | np.unsignedinteger]:
    return np.uint8 if ids <= 256 else np.int16 if ids <= 1 << 15 else np.int32


def padded(sequences: Sequence[np.ndarray], length: int, ids: int) -> np.ndarray:
    """(n, length) of sequences of ids, none of which is longer; padded on the right."""
    rows = np.full((len(sequences), length), PAD_ID, smallest_type(ids))
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return rows


def require_tokens(path: Path, largest: int) -> int:
    """The number of ids, special ones included, where ``largest`` is the largest token."""
    if largest >= MOST_TOKENS:
        message = f"{path} holds the token {largest}, and a model keeps a vector for every number up to that"
        raise ArtifactError(message, hint=f"number the tokens from 0 on; at most {MOST_TOKENS:,} are possible")
    return int(largest) + 1 + SHIFT


def tokens(path: Path, inputs: np.ndarray, real: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Ids (n, length) of tokens (n, length), and how many ids there are. real: (n, length) bool, None = all."""
    seen = inputs if real is None else np.where(real, inputs, inputs.dtype.type(0))
    fractions = ~np.isfinite(seen) | (seen != np.floor(seen)) if inputs.dtype.kind == "f" else None
    for wrong, what in ((fractions, "which is no whole number"), (seen < 0, "which is negative")):
        if wrong is not None and wrong.any():
            sample, position = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
            message = f"{path}: sample {sample + 1} has {seen[sample, position]} at position {position}, {what}"
            raise ArtifactError(
                message, hint="tokens are numbered from 0 on; for numbers that are values: task.kind=values"
            )
    count = require_tokens(path, int(seen.max()))
    ids = seen.astype(smallest_type(count))
    ids += SHIFT
    if real is not None:
        ids[~real] = PAD_ID
    return ids, count
