"""How a probe divides the memory it may use: sequences per batch, scores per tile, bytes per block of channels.

What the model takes is measured on one sample, not guessed from its shape.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attnprobe.capture.footprint import peak_bytes
from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError
from attnprobe.statistics.intervals import RESAMPLES

# A tile of this size stays in the cache of a CPU core; a GPU wants fewer, larger kernels.
CPU_TILE, GPU_TILE = 2**19, 2**26
WORK_SPACE = 2**24  # bytes that any probe may take for blocks and batches, however little there is to measure
TILE_COPIES = 6  # scores, pattern, their product, the padded copy that folding makes, and slack
MOST_AT_ONCE = 256  # sequences
MEMORY_LIMIT = 2 * 2**30  # bytes beyond the weights and the data, unless another is given


def check_least(n: int, memory_limit: int) -> None:
    """Raises ConfigError if ``memory_limit`` bytes hold not even what every probe of ``n`` sequences needs.

    That is the draws of a bootstrap (the units, how often each draw takes each, and their weights), and work space.
    """
    least = 3 * 8 * RESAMPLES * n + WORK_SPACE
    if memory_limit < least:
        reason = f"memory_limit is too small: {n} sequences need at least {math.ceil(least / 2**20)} MiB"
        raise ConfigError(reason, hint="raise it, or measure fewer")


@torch.no_grad()
def pass_bytes(subject: Subject, samples: np.ndarray, run: Callable[[np.ndarray], Any] | None = None) -> int:
    """Peak of a pass without gradients over one of the samples, beyond weights and data.

    It is that with the most padding, because masks take memory too. run: the pass, ``subject.run`` by default.
    """
    one = most_padded(subject, samples)
    if run is not None:
        return peak_bytes(lambda: run(one))
    key = ("pass", int(one[0]))
    if key not in subject.footprints:
        subject.footprints[key] = peak_bytes(lambda: subject.run(one))
    return subject.footprints[key]


def most_padded(subject: Subject, samples: np.ndarray) -> np.ndarray:
    """(1,) the one with the fewest real positions."""
    real = subject.real(samples)
    if real is None:
        return samples[:1]
    first = int(real.sum(1).view(len(samples), -1).sum(1).argmin())
    return samples[first : first + 1]


def sequences_at_once(subject: Subject, sample: int, memory_limit: int, *, kept: int = 0) -> int:
    """Samples per batch, each of ``sample`` bytes, in half of what ``kept`` leaves.

    Raises ConfigError if that leaves no room for one.
    """
    if kept + sample > memory_limit:
        reason = f"memory_limit is too small: {subject.space.length} positions need about"
        raise ConfigError(f"{reason} {math.ceil((kept + sample) / 2**20)} MiB", hint="raise it")
    return max(1, min(MOST_AT_ONCE, subject.at_once or MOST_AT_ONCE, (memory_limit - kept) // (2 * sample)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    batch: int  # samples per forward pass
    tile: int  # scores held at once
    block_bytes: int  # work space of one block of FFT channels
    null_matrix: bool  # whether the key-permutation null may keep length x length per layer and head


def plan_memory(
    subject: Subject, samples: np.ndarray, *, permutations: int = 0, weights: int = 0, memory_limit: int
) -> Plan:
    """For sums over all pairs of scores. Raises ConfigError, naming what is needed, if not even one sample at a time
    fits into ``memory_limit`` bytes.

    Counts one forward pass without gradients, the work space of the probe and ``weights``, the bytes of those that it
    draws anew; not the model's own weights and the data, which are there anyway.
    """
    layout, layers = subject.space.layout, subject.layers
    on_cpu = layers[0].device.type == "cpu"
    item = max(max(4, layer.dtype.itemsize) for layer in layers)
    length, bins, together = layout.length, math.prod(layout.offsets), subject.per_sample
    heads, all_heads = max(layer.heads for layer in layers), sum(layer.heads for layer in layers)
    channels = max(layer.heads * layer.channels for layer in layers)
    transforms = item * bins * 5 * channels  # queries by frequency, and back
    profiles = heads * bins * (8 * item + 4 * 8)  # of one layer, for every sequence of the batch
    sample = pass_bytes(subject, samples) + together * (transforms + profiles)
    kept = weights + all_heads * bins * 8 * 6 * len(layout.shape)
    row = together * heads * (layout.shape[1] if len(layout.shape) == 2 else 1) ** 2
    least = kept + sample + item * (TILE_COPIES * row + 8 * together * heads * bins)
    if least > memory_limit:
        raise ConfigError(
            f"memory_limit is {_mebibytes(memory_limit)}, but one sample of {length} positions "
            f"needs {_mebibytes(least)}",
            hint="raise it or measure shorter sequences",
        )
    # More sequences at once would only fall out of the cache.
    largest = max(1, (2**16 if on_cpu else 2**20) // (together * heads * length))
    batch = max(1, min(len(samples), largest, subject.at_once or largest, (memory_limit // 2 - kept) // sample))
    free = memory_limit - kept - batch * sample
    matrices = all_heads * length**2 * item * 2
    null_matrix = permutations > 0 and matrices <= free // 2 and length <= max(1024, 8 * permutations)
    free -= matrices if null_matrix else 0
    tile = min(CPU_TILE if on_cpu else GPU_TILE, free // 2 // (TILE_COPIES * item))
    block_bytes = min(2**23 if on_cpu else 2**29, free // 2)
    return Plan(batch=batch, tile=max(tile, batch * row), block_bytes=block_bytes, null_matrix=null_matrix)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**20:.2g} MiB"
