"""Rows of an intervention: what it did to every sample, with intervals, alone and against its controls."""

import dataclasses

import numpy as np

from attnprobe.probes.rows import Measurement
from attnprobe.statistics.intervals import Interval, bootstrap
from attnprobe.statistics.permutations import rank_p_value
from attnprobe.statistics.shares import difference
from attnprobe.statistics.two_way import two_way_interval
from attnprobe.streams import stream

Outcome = dict[str, np.ndarray]  # "loss" and perhaps "accuracy" -> (sample,), or (sample, control)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterventionRow(Measurement):
    """quantity: "accuracy", "loss", and the same with ".change": minus the model left alone, paired by sequence."""

    kind: str  # what was done: a kind of DoseResponse, or which model's W_Q and W_K were used
    dose: float | None = None
    controls: int | None = None  # shuffled profiles that the row rests on, if it rests on some


def single_rows(
    outcome: Outcome, alone: Outcome, kind: str, dose: float | None, level: float, seed: int
) -> list[InterventionRow]:
    """Of one intervention: intervals over sequences."""
    rows = []
    for name, values in outcome.items():
        for quantity, interval in (
            (name, _mean(values, name, level, seed)),
            (f"{name}.change", _change(values, alone[name], name, level, seed)),
        ):
            rows.append(
                InterventionRow(layer=None, head=None, quantity=quantity, interval=interval, kind=kind, dose=dose)
            )
    return rows


def _change(values: np.ndarray, alone: np.ndarray, name: str, level: float, seed: int) -> Interval:
    """Of right and wrong answers another interval: few of them change, and none of those seen may. The model left alone
    is another matter: its answers do not change at all.
    """
    if values is alone or not (_right_or_wrong(values) and _right_or_wrong(alone)):
        return _mean(values - alone, name, level, seed)
    estimate, low, high = difference(values, alone, level)
    return Interval(estimate=estimate, low=low, high=high, level=level, n=len(values), unit=name)


def _mean(samples: np.ndarray, name: str, level: float, seed: int) -> Interval:
    draws = stream(seed, name, "bootstrap")  # the same for every dose and kind, which are paired by sequence
    return bootstrap(samples, level=level, generator=draws).interval(unit=name)


def _right_or_wrong(values: np.ndarray) -> bool:
    return len(values) > 1 and bool(np.isin(values, (0.0, 1.0)).all())


def control_rows(controls: Outcome, alone: Outcome, kind: str, dose: float, level: float) -> list[InterventionRow]:
    """The mean over control draws: intervals over sequences and draws."""
    rows = []
    for name, values in controls.items():
        for quantity, samples in ((name, values), (f"{name}.change", values - alone[name][:, None])):
            interval = two_way_interval(samples, level=level, unit=name, rare=_right_or_wrong(values))
            rows.append(
                InterventionRow(
                    layer=None, head=None, quantity=quantity, interval=interval, kind=kind, dose=dose,
                    controls=samples.shape[1],
                )
            )  # fmt: skip
    return rows


def paired_rows(outcome: Outcome, controls: Outcome, kind: str, dose: float, level: float) -> list[InterventionRow]:
    """An intervention minus the mean of its controls, on the same sequences: intervals over sequences and draws.

    The p-value asks another question than the interval: whether the profile is itself like one of its shuffles. The
    interval is about the distance from their mean, from which a single shuffle would lie as far as shuffles differ.
    """
    rows = []
    for name, values in outcome.items():
        rare = _right_or_wrong(values) and _right_or_wrong(controls[name])
        interval = two_way_interval(values[:, None] - controls[name], level=level, unit=name, rare=rare)
        p_value = float(rank_p_value(values.mean(), controls[name].mean(0), centre=np.mean))
        rows.append(
            InterventionRow(
                layer=None, head=None, quantity=f"{name}.change", interval=interval, p_value=p_value, kind=kind,
                dose=dose, controls=controls[name].shape[1],
            )
        )  # fmt: skip
    return rows
