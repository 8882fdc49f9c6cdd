"""Does a model have proximity bias, or need it? Change the scores at run time and watch accuracy and loss.

The intervention is an additive score offset that depends on the offset only. Its natural size is the model's own: the
mean of the row-centred scores at each offset. Adding -1 times that profile removes it.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import NotApplicableError
from attnprobe.models import Transformer
from attnprobe.objectives import EVALUATION, Objective
from attnprobe.probes.intervention_profiles import (
    batch_size,
    batches,
    dense_space,
    offset_bytes,
    offset_profile,
    score_offsets,
    selection,
    shuffled_profiles,
)
from attnprobe.probes.rows import Measurement, rows_to_records
from attnprobe.probes.score_gradients import attentions, tapped
from attnprobe.probes.sequences import Progress, space_of
from attnprobe.scores.directions import ScoreSpace
from attnprobe.statistics.intervals import bootstrap
from attnprobe.tasks import Split

DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterventionRow(Measurement):
    """quantity: "accuracy", "loss", and the same with ".change": minus the model left alone, paired by sequence."""

    kind: str  # what was done: a kind of DoseResponse, or which model's W_Q and W_K were used
    dose: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoseResponse:
    """Accuracy (where there is something to get right) and loss of the objective against the dose a.

    | kind     | added to the scores                                                              |
    |----------|----------------------------------------------------------------------------------|
    | own      | a times the model's own offset profile; a = -1 removes it                        |
    | shuffled | control: a times the own values permuted over the offsets, of the same norm      |
    | clamp    | a times (given - own profile): a = 1 replaces the own profile by the given one   |
    """

    rows: list[InterventionRow]
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
    model: Transformer,
    split: Split,
    *,
    objective: Objective,
    doses: Sequence[float] = DOSES,
    given: Tensor | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    controls: int = 5,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> DoseResponse:
    """Run the model on ``n`` random sequences at every dose, in the chosen layers and heads (all by default).

    given: (layer, head, *offsets) profile for kind "clamp", left out without it. controls: shuffled profiles, whose
    results are averaged sequence by sequence. progress: is told (runs of the model done, runs in all).
    Raises NotApplicableError above 1024 positions, ConfigError if memory_limit is too small.
    """
    space = dense_space(model)
    chosen = _choose(split, n, generator)
    batch = batch_size(model, space, memory_limit, kept=offset_bytes(model, space))
    own = offset_profile(model, split, index=chosen, batch=batch)
    where = selection(model, layers, heads)
    plans: dict[str, list[Tensor]] = {"own": [own], "shuffled": shuffled_profiles(space, own, controls, generator)}
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
        offsets = None if profile is None else score_offsets(model, space, profile * where)
        outcome = evaluate(model, split, chosen, objective, offsets=offsets, seed=seed, batch=batch)
        done += 1
        if progress is not None:
            progress(done, runs)
        return outcome

    alone = run(None)
    unchanged = _rows(alone, alone, "own", 0.0, level, generator)  # the same model, so the same interval, in every kind
    rows = []
    for kind, profiles in plans.items():
        for dose in doses:
            if dose == 0:
                rows += [dataclasses.replace(row, kind=kind) for row in unchanged]
                continue
            outcomes = [run(dose * profile) for profile in profiles]
            outcome = {name: np.mean([o[name] for o in outcomes], axis=0) for name in alone}
            rows += _rows(outcome, alone, kind, dose, level, generator)
    return DoseResponse(rows=rows, space=space, profile=own)


def swap_projections(model: Transformer, donor: Transformer, layers: Sequence[int] | None = None) -> Transformer:
    """A copy of ``model`` with W_Q and W_K (and their biases) of ``donor`` in the chosen layers (all by default)."""
    mixed = copy.deepcopy(model)
    shapes = [[p.shape for a in attentions(m) for p in (a.q.weight, a.k.weight)] for m in (model, donor)]
    if shapes[0] != shapes[1] or model.config.heads != donor.config.heads:
        raise NotApplicableError(
            "W_Q and W_K can only be swapped between models of the same depth, width and heads",
            hint="swap between checkpoints of runs with the same model settings",
        )
    targets, sources = attentions(mixed), attentions(donor)
    for layer in range(len(targets)) if layers is None else layers:
        targets[layer].q.load_state_dict(sources[layer].q.state_dict())
        targets[layer].k.load_state_dict(sources[layer].k.state_dict())
    return mixed


def swap_response(
    first: Transformer,
    second: Transformer,
    split: Split,
    *,
    objective: Objective,
    layers: Sequence[int] | None = None,
    n: int | None = None,
    level: float = 0.95,
    memory_limit: int = 2 * 2**30,
    seed: int = 0,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> list[InterventionRow]:
    """Both models as they are and with each other's W_Q and W_K; changes are against the model that was changed.

    progress: is told (runs of a model done, runs in all).
    """
    space = space_of(first)
    chosen, batch = _choose(split, n, generator), batch_size(first, space, memory_limit)
    rows = []
    pairs = (("first", first, "second", second), ("second", second, "first", first))
    for number, (name, model, donor_name, donor) in enumerate(pairs):
        mixed = swap_projections(model, donor, layers)
        outcomes = []
        for variant in (model, mixed):
            outcomes.append(evaluate(variant, split, chosen, objective, seed=seed, batch=batch))
            if progress is not None:
                progress(2 * number + len(outcomes), 4)
        alone, swapped = outcomes
        rows += _rows(alone, alone, name, None, level, generator)
        rows += _rows(swapped, alone, f"{name} with W_Q, W_K of {donor_name}", None, level, generator)
    return rows


@torch.no_grad()
def evaluate(
    model: Transformer,
    split: Split,
    index: np.ndarray,
    objective: Objective,
    *,
    offsets: Mapping[int, Tensor] | None = None,
    seed: int,
    batch: int,
) -> dict[str, np.ndarray]:
    """Per-sequence means over what counts: "loss" (n,) and, where something can be right, "accuracy" (n,)."""
    results: dict[str, list[Tensor]] = {}
    with tapped(model, score_offsets=offsets):
        for part in batches(split, index, batch):
            losses = objective.losses(model, part, seed=seed, epoch=EVALUATION)
            count = losses.count.clamp(min=1)
            results.setdefault("loss", []).append(losses.loss / count)
            if losses.correct is not None:
                results.setdefault("accuracy", []).append(losses.correct / count)
    return {name: torch.cat(values).double().cpu().numpy() for name, values in results.items()}


def _rows(
    outcome: dict[str, np.ndarray],
    alone: dict[str, np.ndarray],
    kind: str,
    dose: float | None,
    level: float,
    generator: np.random.Generator,
) -> list[InterventionRow]:
    rows = []
    for name, values in outcome.items():
        unit = "accuracy" if name == "accuracy" else "loss"
        for quantity, samples in ((name, values), (f"{name}.change", values - alone[name])):
            interval = bootstrap(samples, level=level, generator=generator).interval(unit=unit)
            rows.append(
                InterventionRow(layer=None, head=None, quantity=quantity, interval=interval, kind=kind, dose=dose)
            )
    return rows


def _choose(split: Split, n: int | None, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(len(split))[: len(split) if n is None else n]
