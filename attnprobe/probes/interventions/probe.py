"""Does a model have proximity bias, or need it? Change the scores at run time and watch accuracy and loss.

The intervention is an additive score offset that depends on the offset only. Its natural size is the model's own: the
mean of the row-centred scores at each offset. Adding -1 times that profile removes it.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import ScoreOffsets, Subject
from attnprobe.errors import NotApplicableError
from attnprobe.probes.interventions.profiles import (
    dense_space,
    offset_bytes,
    offset_profile,
    score_offsets,
    selection,
    shuffled_profiles,
)
from attnprobe.probes.memory import pass_bytes, sequences_at_once
from attnprobe.probes.rows import Measurement, rows_to_records
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.directions import ScoreSpace
from attnprobe.statistics.intervals import bootstrap
from attnprobe.streams import stream

DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterventionRow(Measurement):
    """quantity: "accuracy", "loss", and the same with ".change": minus the model left alone, paired by sequence."""

    kind: str  # what was done: a kind of DoseResponse, or which model's W_Q and W_K were used
    dose: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoseResponse:
    """Accuracy (where there is something to get right) and loss against the dose a.

    | kind     | added to the scores                                                              |
    |----------|----------------------------------------------------------------------------------|
    | own      | a times the model's own offset profile; a = -1 removes it                        |
    | shuffled | control: a times the own values permuted over the offsets, of the same norm      |
    | clamp    | a times (given - own profile): a = 1 replaces the own profile by the given one   |
    """

    rows: list[InterventionRow]
    samples: np.ndarray  # (n,) those that were measured
    space: ScoreSpace
    profile: Tensor  # (layer, head, *offsets) the model's own, float64

    def records(self, checkpoint: str) -> list[dict[str, Any]]:
        return rows_to_records(self.rows, checkpoint, "kind", "dose")

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        axes = self.space.offset_axes()
        names = {name: [name] for name in axes} | {"profile": ["layer", "head", *axes]}
        return axes | {"profile": self.profile.numpy(), "axes": np.array(json.dumps(names))}

    def select(self, quantity: str, kind: str) -> list[InterventionRow]:
        """By ascending dose."""
        chosen = [row for row in self.rows if row.quantity == quantity and row.kind == kind]
        return sorted(chosen, key=lambda row: row.dose if row.dose is not None else 0.0)


def dose_response(
    subject: Subject,
    *,
    loss: str = "label",
    doses: Sequence[float] = DOSES,
    given: Tensor | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    controls: int = 5,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    progress: Progress | None = None,
) -> DoseResponse:
    """Run a subject on ``n`` samples (all by default) at every dose, in the chosen layers and heads (all by default).

    given: (layer, head, *offsets) profile for kind "clamp", left out without it. controls: shuffled profiles, whose
    results are averaged sequence by sequence. progress: is told (runs of the model done, runs in all).
    Raises NotApplicableError above 1024 positions, ConfigError if memory_limit is too small.
    """
    space, samples = dense_space(subject), subject.draw(n, seed)
    own = offset_profile(subject, samples, memory_limit=memory_limit)
    run_once = functools.partial(subject.loss, loss, score_offsets=score_offsets(subject, own))
    sample = pass_bytes(subject, samples, run_once)
    del run_once  # the offsets of one run at a time are kept
    batch = sequences_at_once(subject, sample, memory_limit, kept=offset_bytes(subject))
    where = selection(subject, layers, heads)
    plans: dict[str, list[Tensor]] = {"own": [own], "shuffled": shuffled_profiles(space, own, controls, seed)}
    if given is not None:
        if given.shape != own.shape:
            raise NotApplicableError(
                f"a given profile must have shape {tuple(own.shape)}, got {tuple(given.shape)}",
                hint="give one value for each offset, head and layer, in the shape of the model's own profile",
            )
        plans["clamp"] = [given.to(own) - own]
    runs, done = 1 + sum(map(len, plans.values())) * sum(dose != 0 for dose in doses), 0

    def run(profile: Tensor | None) -> dict[str, np.ndarray]:
        nonlocal done
        offsets = None if profile is None else score_offsets(subject, profile * where)
        outcome = evaluate(subject, samples, loss, offsets=offsets, batch=batch)
        done += 1
        if progress is not None:
            progress(done, runs)
        return outcome

    alone = run(None)
    unchanged = _rows(alone, alone, "own", 0.0, level, seed)  # the same model, so the same interval, in every kind
    rows = []
    for kind, profiles in plans.items():
        for dose in doses:
            if dose == 0:
                rows += [dataclasses.replace(row, kind=kind) for row in unchanged]
                continue
            outcomes = [run(dose * profile) for profile in profiles]
            outcome = {name: np.mean([o[name] for o in outcomes], axis=0) for name in alone}
            rows += _rows(outcome, alone, kind, dose, level, seed)
    return DoseResponse(rows=rows, samples=samples, space=space, profile=own)


def swap_response(
    first: Subject,
    second: Subject,
    *,
    loss: str = "label",
    layers: Sequence[int] | None = None,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[InterventionRow]:
    """Both subjects as they are and with each other's W_Q and W_K; changes are against the one that was changed.

    progress: is told (runs of a subject done, runs in all).
    """
    samples = first.draw(n, seed)
    sample = pass_bytes(first, samples, lambda one: first.loss(loss, one))
    batch = sequences_at_once(first, sample, memory_limit)
    rows = []
    pairs = (("first", first, "second", second), ("second", second, "first", first))
    for number, (name, subject, donor_name, donor) in enumerate(pairs):
        mixed = subject.with_projections_of(donor, layers)
        outcomes = []
        for variant in (subject, mixed):
            outcomes.append(evaluate(variant, samples, loss, batch=batch))
            if progress is not None:
                progress(2 * number + len(outcomes), 4)
        alone, swapped = outcomes
        rows += _rows(alone, alone, name, None, level, seed)
        rows += _rows(swapped, alone, f"{name} with W_Q, W_K of {donor_name}", None, level, seed)
    return rows


@torch.no_grad()
def evaluate(
    subject: Subject, samples: np.ndarray, loss: str, *, offsets: ScoreOffsets | None = None, batch: int
) -> dict[str, np.ndarray]:
    """Of every sample "loss" (n,) and, where something can be right, "accuracy" (n,)."""
    results: dict[str, list[Tensor]] = {}
    for _, part in batches(samples, batch):
        found = subject.loss(loss, part, score_offsets=offsets)
        results.setdefault("loss", []).append(found.value)
        if found.accuracy is not None:
            results.setdefault("accuracy", []).append(found.accuracy)
    return {name: torch.cat(values).double().cpu().numpy() for name, values in results.items()}


def _rows(
    outcome: dict[str, np.ndarray],
    alone: dict[str, np.ndarray],
    kind: str,
    dose: float | None,
    level: float,
    seed: int,
) -> list[InterventionRow]:
    rows = []
    for name, values in outcome.items():
        unit = "accuracy" if name == "accuracy" else "loss"
        for quantity, samples in ((name, values), (f"{name}.change", values - alone[name])):
            draws = stream(seed, name, "bootstrap")  # the same for every dose and kind, which are paired by sequence
            interval = bootstrap(samples, level=level, generator=draws).interval(unit=unit)
            rows.append(
                InterventionRow(layer=None, head=None, quantity=quantity, interval=interval, kind=kind, dose=dose)
            )
    return rows
