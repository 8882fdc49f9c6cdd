"""Is a reconstruction gradient along a direction due to where things stand in the data, or would it be there anyway?

A t against zero only says that the mean gradient is no noise. Two nulls say more:

* positions: the same model on the same samples, their positions in K random orders, one order for all samples at a
  time. If the order of the data carries nothing (their distribution is the same in every order), the K means and the
  mean as it is are exchangeable: the rank is exact, whatever the model. What a reconstruction hides is drawn in
  positions and does not depend on what stands there, so the masks stay the same. Where lengths differ, positions change
  places only with those that are real in the same sequences.
* phase: the same gradient along K profiles with the amplitude spectrum of the direction and random phases. It asks
  whether the gradient prefers this profile to others as smooth; its rank is exact only for a gradient that is a
  stationary field over the offsets.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.alignment.rows import AlignmentRow, Null, Settings, ratio
from attnprobe.probes.score_gradients import trace
from attnprobe.probes.sequences import Progress, batches, part_of
from attnprobe.scores.directions import Direction, Projector, ScoreSpace
from attnprobe.scores.distance_profiles import random_phases
from attnprobe.statistics.intervals import Interval
from attnprobe.statistics.permutations import null_band, rank_p_value
from attnprobe.statistics.student import margin
from attnprobe.streams import stream

FEWEST_MOVABLE = 5  # positions, of one group


@dataclasses.dataclass(frozen=True, kw_only=True)
class NullProjections:
    """Of the reconstruction gradient, per draw of a null."""

    kind: Null
    names: list[str]  # of the directions
    means: np.ndarray  # (draw, layer, head, direction)
    ts: np.ndarray  # the same in standard errors
    average: np.ndarray  # (n, layer, head, direction) over the draws, sequence by sequence


def comparable(directions: Sequence[Direction], null: Null) -> list[Direction]:
    """The directions that are compared with the null: no single offsets, no controls, and for random phases only
    profiles that all heads share and that have more than one value.
    """
    named = [d for d in directions if d.role == "named"]
    if null == "positions":
        return named
    profiles = [d for d in named if d.profile is not None and d.matrix is None]
    shared = [d for d in profiles if d.profile is not None and d.profile.dim() < 3]
    return [d for d in shared if null == "phase" and d.profile is not None and int(d.profile.count_nonzero()) > 1]


def project_null(
    subject: Subject,
    samples: np.ndarray,
    directions: Sequence[Direction],
    null: Null,
    plan: Plan,
    *,
    orders: int,
    seed: int,
    progress: Progress | None = None,
) -> NullProjections:
    """``orders`` draws of the null for the directions of ``comparable``."""
    if null == "phase":
        return _phases(subject, samples, directions, plan, orders=orders, seed=seed, progress=progress)
    layers, heads = subject.shape
    projector = Projector(subject.space, directions, layers=layers, heads=heads)
    means, ts, total = [], [], np.zeros(())
    for number, other in enumerate(reorderings(subject, samples, orders, seed)):
        found = project(other, samples, projector, plan, part_of(progress, number, orders))
        means.append(found.mean(0))
        ts.append(in_standard_errors(found))
        total = total + found
    return NullProjections(
        kind=null, names=projector.names, means=np.stack(means), ts=np.stack(ts), average=total / orders
    )


def reorderings(subject: Subject, samples: np.ndarray, count: int, seed: int) -> Iterator[Subject]:
    """The subject in ``count`` random orders of the positions that are real in the same ``samples``.

    These orders are a group, and so exchangeable with none. Over all positions they would not be: sequences of several
    lengths would get different orders, and a place that holds the same thing in all of them would lose it. On real
    images in random order, padded, 12 % of the p-values were below .05 that way. NotApplicableError if no group has
    five positions, which have 120 orders.
    """
    blocks = shared_positions(subject, samples)
    movable = max(map(len, blocks))
    if not movable_enough(subject, samples):
        raise NotApplicableError(
            f"these sequences differ so much in length that only {movable} positions are real in the same ones, too "
            "few to be put in other orders",
            hint="take the null of random phases, or none (--null), or sequences of like length",
        )
    draw = stream(seed, "orders")
    for _ in range(count):
        order = np.arange(subject.space.length)
        for block in blocks:
            order[block] = draw.permutation(block)
        yield subject.reordered(order)


def movable_enough(subject: Subject, samples: np.ndarray) -> bool:
    """Whether there are random orders of the positions of these samples to compare with."""
    return max(map(len, shared_positions(subject, samples))) >= FEWEST_MOVABLE


def shared_positions(subject: Subject, samples: np.ndarray) -> list[np.ndarray]:
    """Positions in groups: those of a group are real in the same sequences. What is real in none is in no group."""
    valid = subject.real(samples)
    if valid is None:
        return [np.arange(subject.space.length)]
    real = valid.cpu().numpy()
    _, group = np.unique(real, axis=1, return_inverse=True)
    group = np.where(real.any(0), group.ravel(), -1)
    return [np.flatnonzero(group == number) for number in np.unique(group[group >= 0])]


def project(
    subject: Subject, samples: np.ndarray, projector: Projector, plan: Plan, progress: Progress | None = None
) -> np.ndarray:
    """Projections of every sample's reconstruction gradient, (n, layer, head, direction)."""
    space, (layers, heads) = projector.space, subject.shape
    found = np.zeros((len(samples), layers, heads, len(projector.names)))
    for span, part in batches(samples, plan.batch_of_all, progress):
        traced = trace(subject, part, "reconstruction", method=plan.method)
        fitted = projector.fitted(traced.valid)
        for block in traced.gradients(plan.rows_of_all):
            folded = space.fold(block.values, block.rows)
            projected = projector.project(block.values, folded, block.layer, block.rows, fitted)
            found[span, block.layer] += projected[0].double().cpu().numpy()
    return found


def _phases(
    subject: Subject,
    samples: np.ndarray,
    directions: Sequence[Direction],
    plan: Plan,
    *,
    orders: int,
    seed: int,
    progress: Progress | None,
) -> NullProjections:
    (layers, heads), names = subject.shape, [d.name for d in directions]
    controls = [c for d in directions for c in phase_controls(subject.space, d, orders, seed)]
    projector = Projector(subject.space, controls, layers=layers, heads=heads)
    found = project(subject, samples, projector, plan, progress)
    found = found.reshape(*found.shape[:-1], len(names), orders)
    means, ts = found.mean(0), in_standard_errors(found)
    return NullProjections(
        kind="phase", names=names, means=np.moveaxis(means, -1, 0), ts=np.moveaxis(ts, -1, 0), average=found.mean(-1)
    )


def phase_controls(space: ScoreSpace, direction: Direction, count: int, seed: int) -> list[Direction]:
    """Profiles as smooth as that of the direction."""
    assert direction.profile is not None
    profile, draw = direction.profile.double(), stream(seed, "phases", direction.name)
    noise = torch.from_numpy(draw.standard_normal((count, *profile.shape)))
    return [
        Direction(name=f"{direction.name}, phases {i}", profile=random_phases(profile, one, space.layout))
        for i, one in enumerate(noise)
    ]


def in_standard_errors(samples: np.ndarray) -> np.ndarray:
    return ratio(samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples)))


def null_rows(
    projection: np.ndarray, names: list[str], null: NullProjections, settings: Settings
) -> list[AlignmentRow]:
    """reconstruction.positions or .phase, the mean beyond that of the null with the p-value of its rank, and
    reconstruction.t.null, the band of t under it.

    projection (n, layer, head, direction), its directions called ``names``. The rank is that of the distance from the
    mean of all K + 1 values, which treats them alike. The error of the difference is that over the sequences and that
    of the mean over the draws; its degrees of freedom are those of Welch and Satterthwaite.
    """
    projection = projection[..., [names.index(name) for name in null.names]]
    observed, k, n = projection.mean(0), len(null.means), len(projection)
    p_values = rank_p_value(observed, null.means, centre=np.mean)
    band = null_band(null.ts, level=settings.level, n=n)
    difference = projection - null.average
    parts = difference.var(0, ddof=1) / n, null.means.var(0, ddof=1) / k
    degrees = ratio((parts[0] + parts[1]) ** 2, parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (k - 1))
    halves = margin(np.sqrt(parts[0] + parts[1]), degrees, level=settings.level)
    rows = []
    for layer, head, d in np.ndindex(observed.shape):
        estimate, half = float(difference.mean(0)[layer, head, d]), float(halves[layer, head, d])
        interval = Interval(
            estimate=estimate, low=estimate - half, high=estimate + half, level=settings.level, n=n,
            unit="loss per unit score",
        )  # fmt: skip
        row = AlignmentRow(
            layer=layer, head=head, direction=null.names[d], quantity=f"reconstruction.{null.kind}",
            interval=interval, p_value=float(p_values[layer, head, d]), draws=k,
        )  # fmt: skip
        in_errors = band.interval(layer, head, d, unit="standard errors")
        of_t = dataclasses.replace(row, quantity="reconstruction.t.null", interval=in_errors, p_value=None, draws=None)
        rows += [row, of_t]
    return rows
