"""Do labels pull the attention scores where reconstruction pulls them, and could labels pull there at all?

For every sequence both losses are differentiated along named directions in score space. An untrained readout gives a
label gradient that is never zero, so the label gradient is compared with its own null, shuffled labels: the gradient
of the cross-entropy is sum_c (softmax_c - [c = label]) d logit_c, so with every d logit_c at hand any relabelling is a
recombination, exactly.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from attnprobe.capture.subject import Subject
from attnprobe.config import require
from attnprobe.probes.alignment.arrangement import comparable, project_null
from attnprobe.probes.alignment.checks import ROUNDING, check_enough, check_labels, check_options, check_varying
from attnprobe.probes.alignment.gather import Gathered, gather
from attnprobe.probes.alignment.inner_products import MeanGradient
from attnprobe.probes.alignment.memory import Plan, fitting_groups, make_plan
from attnprobe.probes.alignment.projections import all_rows
from attnprobe.probes.alignment.rows import FIELDS, AlignmentRow, Null, PricedSettings
from attnprobe.probes.memory import MEMORY_LIMIT
from attnprobe.probes.rows import rows_to_records
from attnprobe.probes.score_gradients import Method
from attnprobe.probes.sequences import Progress, part_of
from attnprobe.scores.directions import Direction, Projector, ScoreSpace
from attnprobe.scores.named import named_directions
from attnprobe.statistics.intervals import RESAMPLES
from attnprobe.streams import stream

LOSSES = ("label", "reconstruction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """``rows`` say, by quantity (t = mean / standard error; everything per layer and head):

    | quantity                    | meaning                                                                          |
    |-----------------------------|----------------------------------------------------------------------------------|
    | label.mean, label.t         | projection of the label gradient; compare t with label.t.null, not with zero     |
    | label.t.null                | mean and band of label.t over shuffled labels                                    |
    | label.dependent.mean        | the part that depends on the labels; its p_value is that of shuffled labels      |
    | label.dependent.t           | its t                                                                            |
    | label.dependent.sequences   | how many sequences detect it at the level and power that its unit names,         |
    |                             | ((z_level + z_power) sigma / mu)^2; infinite where the interval of the mean      |
    |                             | holds zero                                                                       |
    | label_to_reconstruction     | absolute mean of the label-dependent part over that of reconstruction; a         |
    |                             | one-sided interval from 0: at this level none of all heads along the direction   |
    |                             | exceeds its ``high``, infinite where reconstruction is not resolved from zero    |
    | reconstruction.mean         | projection of the reconstruction gradient; p_value against zero                  |
    | reconstruction.t            | its t                                                                            |
    | reconstruction.sequences    | how many sequences detect it, as above                                           |
    | reconstruction.positions    | mean beyond that of the same data with their positions in random orders; p_value |
    |                             | is the rank among these: does the arrangement of the data along the positions    |
    |                             | drive this gradient? Negative: a descent step moves scores along the direction,  |
    |                             | towards near keys for contrast or proximity; positive: away                      |
    | reconstruction.phase        | with ``null="phase"`` instead: beyond that along profiles of the same spectrum   |
    | reconstruction.t.null       | mean and band of reconstruction.t under that null                                |
    | LOSS.offset_share           | share of the energy of single gradients that depends on the offset only, over    |
    |                             | the real pairs of each sequence                                                  |
    | PART.offset_share.mean      | the same of the mean gradient, corrected for noise (up to 1024 positions)        |
    | offset_share.chance         | what random gradients over the same pairs would have                             |
    | cosine.WHERE                | cosine of the label-dependent and the reconstruction mean gradient along scores  |
    |                             | (up to 1024 positions), offsets, W_Q, W_K (if the subject shows them), corrected |
    |                             | for noise; p_value of their inner product under shuffled labels                  |
    | cosine.WHERE.raw, .null     | not corrected; mean and band of the raw one under shuffled labels                |

    LOSS is label or reconstruction, PART label.dependent or reconstruction. q-values are adjusted over all layers,
    heads and directions of a quantity; those of controls, which ask nothing, by themselves. Where k of m tests have
    the smallest p-value, 1 / (draws + 1), their q-values are up to m / k times as large: with 39 orders half of all
    tests must for a q-value of .05, and 20 m - 1 orders would let a single one have it.
    """

    rows: list[AlignmentRow]
    samples: np.ndarray  # (n,) those that were measured
    space: ScoreSpace
    profiles: dict[str, np.ndarray]  # LOSS -> t of the gradient's sum at every offset, (layer, head, *offsets)

    def records(self, checkpoint: str) -> list[dict[str, Any]]:
        """Tidy records as of ``rows_to_records`` with three more keys, direction, family and draws."""
        return rows_to_records(self.rows, checkpoint, *FIELDS)

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        axes = self.space.offset_axes()
        names = {name: [name] for name in axes} | {f"{loss}_t": ["layer", "head", *axes] for loss in self.profiles}
        profiles = {f"{loss}_t": profile for loss, profile in self.profiles.items()}
        return axes | profiles | {"axes": np.array(json.dumps(names))}

    def select(self, quantity: str) -> list[AlignmentRow]:
        return [row for row in self.rows if row.quantity == quantity]


def measure(
    subject: Subject,
    *,
    n: int | None = None,
    directions: list[Direction] | None = None,
    shuffles: int = 999,
    null: Null = "positions",
    orders: int = 39,
    level: float = 0.95,
    power: float = 0.8,
    groups: int = 20,
    method: Method = "streamed",
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """Compare the losses "label" and "reconstruction" of a subject on ``n`` samples (all of them by default).

    directions: ``named_directions`` by default. shuffles: of the labels, and of signs. null: what reconstruction
    gradients along directions that are no single offsets or controls are compared with (``arrangement``), in
    ``orders`` draws: "positions" costs a pass for each, "phase" one pass, "none" nothing. power: at which prices of
    detection are named. groups: how many group means the cosines and the shares of the mean are computed from; fewer
    where memory is short; 1: neither. method: "dense" (a score offset per pair, up to 1024 positions) or "streamed";
    they agree. memory_limit: bytes beyond the weights and the data.
    Raises ConfigError if the limit or the number of draws is too small, NotApplicableError if the question has no
    meaning here or values are not finite, RunError on inconsistent gradients.
    """
    layers, heads = subject.shape
    space = subject.space
    require(null in get_args(Null), "null", f"must be {', '.join(get_args(Null))}, got {null!r}")
    draws = {"shuffles": shuffles} | ({} if null == "none" else {"orders": orders})
    check_options(space.length, method=method, power=power, level=level, draws=draws)
    samples = subject.draw(n, seed)
    order = stream(seed, "groups").permutation(samples)  # samples that stand together may be alike
    labels = check_labels(subject, order)
    check_enough(labels, level)
    if directions is None:
        directions = named_directions(space, seed=seed)
    compared = comparable(directions, null)
    memory_limit -= sum(d.matrix.nbytes for d in directions if d.matrix is not None)
    groups = fitting_groups(subject, max(1, min(groups, len(samples) // 2)), memory_limit)
    projector = Projector(space, directions, layers=layers, heads=heads)
    projected = len(directions) + len(compared) * (orders if null == "phase" else 1)
    sizes = {"groups": groups, "directions": projected, "draws": max(shuffles, RESAMPLES)}
    limits = {"method": method, "memory_limit": memory_limit}
    # Both before the long work of either.
    plans = {loss: make_plan(subject, samples, loss, **sizes, **limits) for loss in LOSSES}
    parts = 2 + (0 if not compared else orders if null == "positions" else 1)
    gathered = gather_both(
        subject, np.array_split(order, groups), projector, plans, [part_of(progress, i, parts) for i in range(2)]
    )
    drawn = None
    if compared:
        whole, plan = parts * len(order), plans["reconstruction"]
        told = None if progress is None else lambda done, _: progress(2 * len(order) + done, whole)
        drawn = project_null(subject, order, compared, null, plan, orders=orders, seed=seed, progress=told)
    settings = PricedSettings(level=level, power=power, shuffles=shuffles, seed=seed)
    rows = in_families(all_rows(gathered, labels, projector.names, drawn, space, settings), directions)
    profiles = {name: gathered[name].profile_t() for name in LOSSES}
    return Alignment(rows=rows, samples=samples, space=space, profiles=profiles)


def in_families(rows: Sequence[AlignmentRow], directions: Sequence[Direction]) -> list[AlignmentRow]:
    """Rows of single offsets, which are many, and of controls, which are no questions, in families of their own."""
    names = {"offset": "single offsets", "control": "controls"}
    apart = {d.name: names[d.role] for d in directions if d.role in names}
    return [
        row
        if row.direction not in apart
        else dataclasses.replace(row, family=f"{row.quantity}, {apart[row.direction]}")
        for row in rows
    ]


def gather_both(
    subject: Subject,
    groups: list[np.ndarray],
    projector: Projector,
    plans: dict[str, Plan],
    progress: list[Progress | None],
) -> dict[str, Gathered]:
    """Reconstruction first: every logit's gradients are multiplied with its mean gradient, which the cosines need."""
    with subject.differentiable():  # W_Q and W_K are asked for their gradients even where training froze them
        pulled = gather(subject, groups, "reconstruction", projector, plans["reconstruction"], progress[0])
        sizes = np.array([len(group) for group in groups])
        other = MeanGradient.of_groups(pulled.group_means, sizes, subject) if len(groups) > 1 else None
        label = gather(subject, groups, "label", projector, plans["label"], progress[1], other=other)
    gathered = {"label": label, "reconstruction": pulled}
    check_varying(
        {"logits": label.targets, "reconstruction losses": pulled.targets},
        {name: found.projections for name, found in gathered.items()},
        rounding=ROUNDING,
    )
    return gathered
