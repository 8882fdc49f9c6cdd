"""How a probe divides the memory it may use: sequences per batch, scores per tile, bytes per block of channels."""

import dataclasses
import math

from attnprobe.errors import ConfigError
from attnprobe.models import Transformer
from attnprobe.scores.layout import Layout
from attnprobe.statistics.intervals import RESAMPLES

# A tile of this size stays in the cache of a CPU core; a GPU wants fewer, larger kernels.
CPU_TILE, GPU_TILE = 2**19, 2**26
WORK_SPACE = 2**24  # bytes that any probe may take for blocks and batches, however little there is to measure
TILE_COPIES = 6  # scores, pattern, their product, the padded copy that folding makes, and slack


def check_least(n: int, memory_limit: int) -> None:
    """Raises ConfigError if ``memory_limit`` bytes hold not even what every probe of ``n`` sequences needs.

    That is the draws of a bootstrap (the units, how often each draw takes each, and their weights), and work space.
    """
    least = 3 * 8 * RESAMPLES * n + WORK_SPACE
    if memory_limit < least:
        reason = f"memory_limit is too small: {n} sequences need at least {math.ceil(least / 2**20)} MiB"
        raise ConfigError(reason, hint="raise it, or measure fewer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    batch: int  # samples per forward pass
    tile: int  # scores held at once
    block_bytes: int  # work space of one block of FFT channels
    null_matrix: bool  # whether the key-permutation null may keep length x length per layer and head


def plan_memory(
    model: Transformer, layout: Layout, *, samples: int, padded: bool, permutations: int, memory_limit: int
) -> Plan:
    """Raises ConfigError, naming what is needed, if not even one sample at a time fits into ``memory_limit`` bytes.

    Counts activations of one forward pass without gradients and the work space of the probe; not the model's weights
    and the data, which are there anyway.
    """
    parameter = next(model.parameters())
    config, item, on_cpu = model.config, parameter.element_size(), parameter.device.type == "cpu"
    length, bins, heads = layout.length, math.prod(layout.offsets), config.heads
    together = 2 if model.spec.pairs else 1  # sequences in a sample
    activations = item * length * (10 * config.d_model + 3 * config.d_mlp)
    transforms = item * bins * 5 * config.d_model  # queries in the frequency domain, and back
    profiles = heads * bins * (8 * item + 4 * 8)  # of one layer, for every sequence of the batch
    sample = together * (activations + transforms + profiles)
    kept = config.layers * heads * bins * 8 * 6 * len(layout.shape)
    if layout.causal and padded:  # the model then masks pair by pair: one mask, and one per sequence as numbers
        kept += 2 * length**2
        sample += together * length**2 * (1 + item)
    row = together * heads * (layout.shape[1] if len(layout.shape) == 2 else 1) ** 2
    least = kept + sample + item * (TILE_COPIES * row + 8 * together * heads * bins)
    if least > memory_limit:
        raise ConfigError(
            f"memory_limit is {_mebibytes(memory_limit)}, but one sample of {length} positions "
            f"needs {_mebibytes(least)}",
            hint="raise it or measure shorter sequences",
        )
    largest = max(
        1, (2**16 if on_cpu else 2**20) // (together * heads * length)
    )  # more would only fall out of the cache
    batch = max(1, min(samples, largest, (memory_limit // 2 - kept) // sample))
    free = memory_limit - kept - batch * sample
    matrices = config.layers * heads * length**2 * item * 2
    null_matrix = matrices <= free // 2 and length <= max(1024, 8 * permutations)
    free -= matrices if null_matrix else 0
    tile = min(CPU_TILE if on_cpu else GPU_TILE, free // 2 // (TILE_COPIES * item))
    block_bytes = min(2**23 if on_cpu else 2**29, free // 2)
    return Plan(batch=batch, tile=max(tile, batch * row), block_bytes=block_bytes, null_matrix=null_matrix)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**20:.2g} MiB"
