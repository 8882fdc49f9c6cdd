"""Does a model have proximity bias, or need it? Change the scores at run time and watch accuracy and loss.

The intervention is an additive score offset that depends on the offset only. Its natural size is the model's own: the
mean of the row-centred scores at each offset. Adding -1 times that profile removes it.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.subject import ScoreOffsets, Subject
from attnprobe.config import require
from attnprobe.errors import NotApplicableError
from attnprobe.probes.interventions.profiles import (
    dense_space,
    offset_bytes,
    offset_profile,
    score_offsets,
    selection,
    shuffled_profiles,
)
from attnprobe.probes.interventions.responses import (
    InterventionRow,
    Outcome,
    control_rows,
    paired_rows,
    single_rows,
)
from attnprobe.probes.memory import MEMORY_LIMIT, pass_bytes, sequences_at_once
from attnprobe.probes.rows import rows_to_records
from attnprobe.probes.sequences import Progress, batches
from attnprobe.scores.directions import ScoreSpace

DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
CONTROLS = 20  # with 19 or more a p-value can be 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoseResponse:
    """Accuracy (where there is something to get right) and loss against the dose a.

    | kind                | added to the scores                                                              |
    |---------------------|----------------------------------------------------------------------------------|
    | own                 | a times the model's own offset profile; a = -1 removes it                        |
    | shuffled            | control: a times the own values permuted over the offsets, of the same norm      |
    | own - shuffled      | the change by the one minus the mean change by the others                        |
    | clamp               | a times (given - own profile): a = 1 replaces the own profile by the given one   |
    | injected            | a times the given profile, beside the own one                                    |
    | injected shuffled   | control: a times the given values permuted, of the same norm                     |
    | injected - shuffled | the change by the one minus the mean change by the others                        |

    Intervals of rows that rest on controls hold the draw of the controls beside that of the sequences.
    """

    rows: list[InterventionRow]
    samples: np.ndarray  # (n,) those that were measured
    space: ScoreSpace
    profile: Tensor  # (layer, head, *offsets) the model's own, float64

    def records(self, checkpoint: str) -> list[dict[str, Any]]:
        return rows_to_records(self.rows, checkpoint, "kind", "dose", "controls")

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an npz file; ``axes`` is a JSON text that names the axes of every other array."""
        axes = self.space.offset_axes()
        names = {name: [name] for name in axes} | {"profile": ["layer", "head", *axes]}
        return axes | {"profile": self.profile.numpy(), "axes": np.array(json.dumps(names))}

    def select(self, quantity: str, kind: str) -> list[InterventionRow]:
        """By ascending dose."""
        chosen = [row for row in self.rows if row.quantity == quantity and row.kind == kind]
        return sorted(chosen, key=lambda row: row.dose if row.dose is not None else 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intervention:
    kind: str
    profile: Tensor  # (layer, head, *offsets) at dose 1
    control: str | None = None  # what its shuffled profiles are called; None: it has none

    def controls(self, space: ScoreSpace, number: int, seed: int) -> list[Tensor]:
        return [] if self.control is None else shuffled_profiles(space, self.profile, number, seed)


def dose_response(
    subject: Subject,
    *,
    loss: str = "label",
    doses: Sequence[float] = DOSES,
    given: Tensor | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    controls: int = CONTROLS,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = MEMORY_LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> DoseResponse:
    """Run a subject on ``n`` samples (all by default) at every dose, in the chosen layers and heads (all by default).

    given: (layer, head, *offsets) profile for the kinds "clamp" and "injected", left out without it. controls: shuffled
    profiles; at every dose the model is run once for each of them. progress: is told (runs of the model done, in all).
    Raises NotApplicableError above 1024 positions, or if all samples have one loss; ConfigError with fewer than two
    controls, whose draw nothing would be known about, or if memory_limit is too small.
    """
    require(controls >= 2, "controls", f"must be at least 2, or their draw has no error; got {controls}")
    require(len(doses) > 0 and bool(np.isfinite(doses).all()), "doses", f"must be finite numbers, got {list(doses)}")
    space, samples = dense_space(subject), subject.draw(n, seed)
    where = selection(subject, layers, heads)
    own = offset_profile(subject, samples, memory_limit=memory_limit)
    interventions = _interventions(own, given)
    shuffled = [each.controls(space, controls, seed) for each in interventions]
    run_once = functools.partial(subject.loss, loss, score_offsets=score_offsets(subject, own))
    sample = pass_bytes(subject, samples, run_once)
    del run_once  # the offsets of one run at a time are kept, but the allocator may still hold those of the last one
    batch = sequences_at_once(subject, sample, memory_limit, kept=2 * offset_bytes(subject))
    runs, done = 1 + sum(1 + len(drawn) for drawn in shuffled) * sum(dose != 0 for dose in doses), 0

    def run(profile: Tensor | None) -> Outcome:
        nonlocal done
        offsets = None if profile is None else score_offsets(subject, profile * where)
        outcome = evaluate(subject, samples, loss, offsets=offsets, batch=batch)
        done += 1
        if progress is not None:
            progress(done, runs)
        return outcome

    alone = run(None)
    check_varied(alone)
    rows = []
    for intervention, drawn in zip(interventions, shuffled, strict=True):
        rows += _rows_of(intervention, drawn, doses, run, alone, level, seed)
    return DoseResponse(rows=rows, samples=samples, space=space, profile=own)


def _interventions(own: Tensor, given: Tensor | None) -> list[Intervention]:
    found = [Intervention(kind="own", profile=own, control="shuffled")]
    if given is None:
        return found
    if given.shape != own.shape:
        raise NotApplicableError(
            f"a given profile must have shape {tuple(own.shape)}, got {tuple(given.shape)}",
            hint="give one value for each offset, head and layer, in the shape of the model's own profile",
        )
    given = given.to(own)
    clamp = Intervention(kind="clamp", profile=given - own)
    return [*found, clamp, Intervention(kind="injected", profile=given, control="injected shuffled")]


def _rows_of(
    intervention: Intervention,
    shuffled: list[Tensor],
    doses: Sequence[float],
    run: Callable[[Tensor], Outcome],
    alone: Outcome,
    level: float,
    seed: int,
) -> list[InterventionRow]:
    """Of one intervention at all doses: its own, those of its controls, and their difference."""
    kind, control, pair = intervention.kind, intervention.control, f"{intervention.kind} - shuffled"
    single, controls, paired = [], [], []
    for dose in doses:
        if dose == 0:  # the same model, so the same interval, in every kind
            unchanged = single_rows(alone, alone, kind, 0.0, level, seed)
            single += unchanged
            if control is not None:
                controls += [dataclasses.replace(row, kind=control) for row in unchanged]
                paired += [dataclasses.replace(row, kind=pair) for row in unchanged if row.quantity.endswith("change")]
            continue
        outcome = run(dose * intervention.profile)
        single += single_rows(outcome, alone, kind, dose, level, seed)
        if control is not None:
            outcomes = [run(dose * profile) for profile in shuffled]
            drawn = {name: np.stack([o[name] for o in outcomes], axis=1) for name in alone}
            controls += control_rows(drawn, alone, control, dose, level)
            paired += paired_rows(outcome, drawn, pair, dose, level)
    return single + controls + paired


def check_varied(outcome: Outcome) -> None:
    """NotApplicableError if several samples have one loss, up to rounding: an interval over them would say nothing."""
    losses = outcome["loss"]
    if len(losses) > 1 and np.ptp(losses) <= 1e-6 * np.abs(losses).max():
        raise NotApplicableError(
            f"the loss of all {len(losses)} sequences is {losses[0]:.4g}, so there is no spread to judge changes by",
            hint="measure on sequences that differ, with a model that tells them apart",
        )


def swap_response(
    first: Subject,
    second: Subject,
    *,
    loss: str = "label",
    layers: Sequence[int] | None = None,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = MEMORY_LIMIT,
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
        rows += single_rows(alone, alone, name, None, level, seed)
        rows += single_rows(swapped, alone, f"{name} with W_Q, W_K of {donor_name}", None, level, seed)
    return rows


@torch.no_grad()
def evaluate(
    subject: Subject, samples: np.ndarray, loss: str, *, offsets: ScoreOffsets | None = None, batch: int
) -> dict[str, np.ndarray]:
    """Of every sample "loss" (n,) and, where something can be right, "accuracy" (n,).

    NotApplicableError if a loss is not finite: then accuracy says nothing either.
    """
    results: dict[str, list[Tensor]] = {}
    for _, part in batches(samples, batch):
        found = subject.loss(loss, part, score_offsets=offsets)
        results.setdefault("loss", []).append(found.value)
        if found.accuracy is not None:
            results.setdefault("accuracy", []).append(found.accuracy)
    outcome = {name: torch.cat(values).double().cpu().numpy() for name, values in results.items()}
    if not np.isfinite(outcome["loss"]).all():
        hint = "choose smaller doses; without any, the training may have diverged"
        raise NotApplicableError("with these scores the loss is NaN or infinite", hint)
    return outcome
