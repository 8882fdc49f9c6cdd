"""Intervals and p-values of the proximity probe, for one head of each model; maxima over heads; pooled seeds."""

import numpy as np
import torch

from attnprobe.calibration.outcomes import Outcome, covers, p_value, row_of
from attnprobe.calibration.worlds import LENGTH, N, Replica, replica_like
from attnprobe.capture.arrays import arrays
from attnprobe.probes import proximity
from attnprobe.streams import stream

DRAWS = 19  # the p-value of a rank among them is .05 in exactly one of twenty replicas
SEEDS = 5  # models that are pooled
POOLED = ("none/full/white", "sinusoidal/full/white")  # cells that can afford it


def check(replica: Replica) -> list[Outcome]:
    outcomes = _of_one_model(replica, include_self=True)
    if replica.cell.data == "white":
        outcomes += _of_one_model(replica, include_self=False)
    if replica.cell.name in POOLED:
        outcomes += _of_seeds(replica)
    if replica.cell.positions == "none" and replica.cell.data == "white" and replica.cell.visibility != "windows":
        outcomes.append(_of_keys(replica))
    return outcomes


def _of_one_model(replica: Replica, *, include_self: bool) -> list[Outcome]:
    found = proximity.measure(
        replica.subject, n=N, null="init", draws=DRAWS, include_self=include_self, seed=replica.seed
    )
    truth, head = replica.scores.bias(found.radius, include_self=include_self), replica.head
    truth |= replica.scores.mass(found.radius) if include_self else {}
    rows = {quantity: row_of(found.rows, quantity, head) for quantity in truth}
    suffix = "" if include_self else ", without self"
    outcomes = [covers(name + suffix, rows[name].interval, float(values[head])) for name, values in truth.items()]
    largest = row_of(found.rows, "proximity_bias.max", None)
    tested = {"proximity_bias": rows["proximity_bias"], "proximity_bias.max": largest}
    return outcomes + [p_value(f"{name}, init{suffix}", row.p_value) for name, row in tested.items()]


def _of_seeds(replica: Replica) -> list[Outcome]:
    """Several untrained models on the same data: nothing is beyond their nulls, and as W_Q and -W_Q are as likely, the
    bias is zero on average over models.
    """
    models = [replica_like(replica, number) for number in range(SEEDS)]
    pooled = proximity.pool(
        [proximity.measure(one.subject, n=N, null="init", draws=DRAWS, seed=one.seed) for one in models],
        seed=replica.seed,
    )
    rows = {row.quantity: row for row in pooled if row.layer == 0}
    return [
        p_value("proximity_bias.max, pooled seeds", rows["proximity_bias.max"].p_value),
        covers("proximity_bias.mean, pooled seeds", rows["proximity_bias.mean"].interval, 0.0),
        covers("proximity_bias.max_beyond_null", rows["proximity_bias.max_beyond_null"].interval, 0.0),
    ]


def _of_keys(replica: Replica) -> Outcome:
    """Scores of Gaussian queries and keys, which know of no position: the null of permuted keys."""
    draws = stream(replica.seed, "plain arrays")
    q, k = (torch.from_numpy(draws.standard_normal((N, 2, LENGTH, 4), dtype=np.float32)) for _ in range(2))
    space = replica.subject.space.layout
    grid = space.shape if len(space.shape) == 2 else None
    valid = replica.subject.real(np.arange(N))
    subject = arrays(q, k, grid=grid, causal=space.causal, valid=valid)
    found = proximity.measure(subject, n=N, null="keys", draws=199, seed=replica.seed)
    return p_value("proximity_bias, keys", row_of(found.rows, "proximity_bias", replica.head).p_value)
