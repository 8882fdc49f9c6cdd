"""How the alignment probe divides its memory: mean gradients that are kept, sequences and queries at once."""

import dataclasses
import math

from attnprobe.errors import ConfigError
from attnprobe.models import Transformer
from attnprobe.probes.score_gradients import Method
from attnprobe.scores.directions import DENSE_LIMIT, ScoreSpace

SHARE = 3  # one part in so many may go to mean gradients over (query, key)
FEWEST_GROUPS = 5  # cosines from fewer have no error bars worth the name
LONG_BLOCK = 256  # queries at a time above DENSE_LIMIT
CPU_BYTES = 2**24  # of a block; larger ones only fall out of the cache
BUDGETS = 4  # sequences and queries take one part in so many each: freed blocks leave holes that nothing else fits in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is held at once."""

    method: Method
    batch: int  # sequences
    rows: int  # queries
    keep_scores: bool  # mean gradients over (query, key), not only by offset


def fitting_groups(model: Transformer, space: ScoreSpace, groups: int, memory_limit: int) -> int:
    """As many groups as have room for mean gradients over (query, key); all of them if those would be too few."""
    fitting = int(memory_limit / SHARE / _group_bytes(model, space))
    return groups if space.length > DENSE_LIMIT or fitting < FEWEST_GROUPS else min(groups, fitting)


def _group_bytes(model: Transformer, space: ScoreSpace) -> int:
    """Mean gradients of both losses over (query, key), for one group."""
    itemsize = max(4, next(model.parameters()).element_size())
    return 2 * itemsize * len(model.blocks) * model.config.heads * space.length**2


def make_plan(
    model: Transformer,
    space: ScoreSpace,
    *,
    sequences: int,
    groups: int,
    targets: int,
    directions: int,
    draws: int,
    method: Method,
    memory_limit: int,
) -> Plan:
    """Fit batches, blocks of rows and kept matrices into ``memory_limit`` bytes beyond the weights and the data.

    draws: of the largest null or bootstrap. Raises ConfigError, naming what is needed, if one sequence and one query
    at a time are already too much.
    """
    heads = len(model.blocks) * model.config.heads
    # Projections and their parts; draws, their errors, and sorted copies; how often each draw takes each sequence.
    results = 8 * heads * directions * (4 * sequences * targets + 6 * draws) + 3 * 8 * draws * sequences
    sequence = sequence_bytes(model, space, targets=targets, directions=directions, method=method)
    # Of one query: scores, pattern and their products; gradients of every target, before and after folding.
    row = next(model.parameters()).element_size() * model.config.heads * (5 + 4 * targets) * space.size
    least = results + sequence + row
    if least > memory_limit:
        reason = f"memory_limit is too small: {sequences} sequences and {directions} directions need about"
        raise ConfigError(f"{reason} {math.ceil(least / 2**20)} MiB", hint="raise it, or measure fewer")
    fits = groups * _group_bytes(model, space) <= memory_limit / SHARE
    keep_scores = fits and groups > 1 and space.length <= DENSE_LIMIT
    kept = groups * _group_bytes(model, space) + 8 * heads * space.length**2 if keep_scores else 0
    budget = max(0, memory_limit - results - kept) / BUDGETS
    if next(model.parameters()).device.type == "cpu":
        budget = min(budget, CPU_BYTES)
    batch = max(1, min(sequences // groups, int(budget / (sequence + row * min(space.length, 64)))))
    longest = space.length if space.length <= DENSE_LIMIT else LONG_BLOCK
    rows = max(1, min(longest, int(budget / (batch * row))))
    return Plan(method=method, batch=batch, rows=rows, keep_scores=keep_scores)


def sequence_bytes(model: Transformer, space: ScoreSpace, *, targets: int, directions: int, method: Method) -> int:
    """Activations and their gradients, profiles and projections of one sequence (a rough count of tensors)."""
    config, layers, itemsize = model.config, len(model.blocks), next(model.parameters()).element_size()
    total = itemsize * layers * space.size * (config.d_model * (16 + targets) + 3 * config.d_mlp)
    total += 8 * layers * config.heads * (3 * math.prod(space.layout.offsets) + targets * directions)
    if method == "dense":
        total += itemsize * layers * config.heads * space.size**2 * (6 + targets)
    return total
