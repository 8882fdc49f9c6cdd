"""From derivatives of every sample to rows and to the answer: blind or not, and up to which ratio."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attnprobe.probes.alignment.labels import STREAM, label_dependence, shuffled_means
from attnprobe.probes.alignment.rows import Settings
from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Band, Interval, bootstrap
from attnprobe.statistics.permutations import alpha, family_wise_p_values, null_band, permutation_p_value
from attnprobe.statistics.ratios import simultaneous_ratio_bounds

UNITS = {"slope": "loss per unit score", "curvature": "loss per unit score squared"}
RATIO = "label / reconstruction"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlindnessRow(Measurement):
    """A derivative of one head along one direction, the ratio of the two losses there, or the answer of a family.

    Families are "blind" (what labels are claimed not to see), "control" and None (neither). ``p_value`` is against
    shuffled labels, ``family_p`` the same adjusted over the family. An answer has neither layer nor head, and quantity
    "largest slope": its interval is that of the slopes' ratio with the largest finite bound.
    """

    loss: str  # "label" (the part that depends on the labels), "reconstruction", or "label / reconstruction"
    direction: str | None = None
    family: str | None = None
    family_p: float | None = None
    null_low: float | None = None  # the estimate under shuffled labels
    null_high: float | None = None
    difference: float | None = None  # between the two computations, relative to the largest value over the samples
    agrees: bool | None = None  # whether rounding, the step or, in a loss with kinks, noise explains it
    rough: bool | None = None  # has kinks, or bends too sharply for the steps: agreement is judged on means
    blind: bool | None = None  # of an answer: nothing was seen at this level, and all derivatives agree
    unresolved: int | None = None  # of an answer: slopes of the reconstruction loss that may be zero


FIELDS = tuple(
    field.name
    for field in dataclasses.fields(BlindnessRow)
    if field.name not in {inherited.name for inherited in dataclasses.fields(Measurement)}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """One direction of one head, one quantity: what it was measured to be in every sample."""

    layer: int
    head: int
    direction: str
    quantity: str
    family: str | None
    label: np.ndarray  # (n, class) derivative of every logit
    reconstruction: np.ndarray  # (n,)
    difference: dict[str, float]  # by loss
    agrees: dict[str, bool]
    rough: dict[str, bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimates:
    """Of places of one quantity, which share their sequences: per sequence (n, place), and of all of them (place,)."""

    label: np.ndarray  # the part that depends on the labels
    reconstruction: np.ndarray
    null: np.ndarray  # (shuffle, place) of the label-dependent mean


def all_rows(
    places: Sequence[Place], labels: np.ndarray, where: dict[str, np.ndarray], settings: Settings
) -> list[BlindnessRow]:
    """Three rows for every place, then the answers.

    labels (n,); where: by quantity the sequences that it was measured on.
    """
    places = sorted(places, key=lambda place: list(where).index(place.quantity))  # by quantity, else as they were
    measured = {q: estimates([p for p in places if p.quantity == q], labels, where[q], settings) for q in where}
    observed = np.concatenate([e.label.mean(0) for e in measured.values()])
    null = np.concatenate([e.null for e in measured.values()], 1)
    families = {name: np.array([p.family == name for p in places]) for name in ("blind", "control")}
    adjusted = np.full(len(places), math.nan)
    for members in families.values():
        if members.any():
            adjusted[members] = family_wise_p_values(observed[members], null[:, members])
    p_values = permutation_p_value(observed, null)
    rows = []
    for quantity, found in measured.items():
        mine = np.array([p.quantity == quantity for p in places])
        here = [place for place in places if place.quantity == quantity]
        rows += quantity_rows(here, found, p_values[mine], adjusted[mine], settings)
    answers = [answer(name, [r for r in rows if r.family == name], settings) for name in families]
    return rows + [row for row in answers if row is not None]


def estimates(places: Sequence[Place], labels: np.ndarray, where: np.ndarray, settings: Settings) -> Estimates:
    derivatives = np.stack([place.label for place in places], -1)  # (n, class, place)
    return Estimates(
        label=label_dependence(derivatives, labels[where]),
        reconstruction=np.stack([place.reconstruction for place in places], -1),
        null=shuffled_means(derivatives, labels, settings.shuffles, settings.draws(STREAM), where=where),
    )


def quantity_rows(
    places: Sequence[Place], found: Estimates, p_values: np.ndarray, adjusted: np.ndarray, settings: Settings
) -> list[BlindnessRow]:
    """Of every place the label-dependent part, reconstruction, and their ratio."""
    unit, generator = UNITS[places[0].quantity], settings.draws("bootstrap")
    bands = {
        loss: bootstrap(getattr(found, loss), level=settings.level, generator=generator)
        for loss in ("label", "reconstruction")
    }
    null = null_band(found.null, level=settings.level, n=len(found.label))
    ratios = ratio_band(places, found, settings)
    rows = []
    for number, place in enumerate(places):
        at: dict[str, Any] = {
            name: getattr(place, name) for name in ("layer", "head", "direction", "quantity", "family")
        }
        shuffled = null.interval(number, unit=unit)
        label: dict[str, Any] = {
            "p_value": float(p_values[number]),
            "family_p": None if place.family is None else float(adjusted[number]),
            "null_low": shuffled.low,
            "null_high": shuffled.high,
        }
        for loss, band in bands.items():
            checked = {name: getattr(place, name)[loss] for name in ("difference", "agrees", "rough")}
            tested = label if loss == "label" else {}
            rows.append(BlindnessRow(loss=loss, interval=band.interval(number, unit=unit), **at, **checked, **tested))
        rows.append(BlindnessRow(loss=RATIO, interval=ratios.interval(number, unit=RATIO), **at))
    return rows


def ratio_band(places: Sequence[Place], found: Estimates, settings: Settings) -> Band:
    """|label-dependent part| / |reconstruction| from 0 to its upper bound, which holds for all places of one family
    together.
    """
    estimate, high = np.full(len(places), math.nan), np.full(len(places), math.nan)
    for family in {place.family for place in places}:
        members = np.array([place.family == family for place in places])
        bounds = simultaneous_ratio_bounds(
            found.label[:, members],
            found.reconstruction[:, members],
            level=settings.level,
            generator=settings.draws("ratios", places[0].quantity, str(family)),
        )
        estimate[members], high[members] = bounds.estimate, bounds.high
    return Band(estimate=estimate, low=np.zeros_like(high), high=high, level=settings.level, n=len(found.label))


def answer(family: str, rows: Sequence[BlindnessRow], settings: Settings) -> BlindnessRow | None:
    """Of one family, whose p-value is the smallest of the adjusted ones; None where it has no member."""
    tested = [row for row in rows if row.loss == "label"]
    if not tested:
        return None
    p = min(row.family_p for row in tested if row.family_p is not None)
    slopes = [row for row in rows if row.loss == RATIO and row.quantity == "slope"]
    resolved = [row.interval for row in slopes if math.isfinite(row.interval.high)]
    largest = max(resolved, key=lambda interval: interval.high, default=None)
    nothing = Interval(
        estimate=math.nan, low=math.nan, high=math.inf, level=settings.level, n=tested[0].interval.n, unit=RATIO
    )
    agrees = all(row.agrees for row in rows if row.loss != RATIO)
    return BlindnessRow(
        layer=None,
        head=None,
        quantity="largest slope",
        loss=RATIO,
        interval=largest or nothing,
        family=family,
        family_p=p,
        agrees=agrees,
        blind=p > alpha(settings.level) and agrees,
        unresolved=len(slopes) - len(resolved),
    )
