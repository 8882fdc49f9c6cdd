"""The comparison itself: refuse unlike sides, collect what differs, and pair what can be paired."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from attnprobe.comparison.differences import Row, differing, distinct, flat, known_to_both, surroundings
from attnprobe.comparison.pairs import RECORDED, outcomes, over_seeds, over_sequences
from attnprobe.comparison.sides import Member, Side
from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.opening import OpenedCheckpoint, Opener
from attnprobe.probes.memory import MEMORY_LIMIT
from attnprobe.tasks import Split
from attnprobe.training.saved.checkpoint import load_checkpoint

FORCE = "--force compares them all the same"
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences are B minus A."""

    a: str
    b: str
    untrained: list[str]  # "A", "B": sides of checkpoints that no phase has trained yet
    settings: list[Row]  # key, a, b: values found on either side, by dotted key
    versions: list[Row]  # the same of versions and machines
    data: list[Row]  # the same of the fingerprints of the data, by phase
    results: dict[str, Row]  # "a", "b" -> n, and the means of what the runs recorded
    rows: list[Row]  # paired differences with intervals
    notes: list[str]  # what could not be compared, and why


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How checkpoints are evaluated; without one, only what the runs recorded is compared."""

    opener: Opener
    n: int | None = None  # sequences of the split; None: all
    memory_limit: int = MEMORY_LIMIT
    progress: Progress = lambda done, total: None


def compare(a: Side, b: Side, evaluation: Evaluation | None, *, level: float = 0.95, force: bool = False) -> Comparison:
    """ConfigError if the sides have other tasks, other test data or other objectives, unless ``force``.

    Sides of one member each are paired, whatever their seeds; others by the seeds that both have.
    """
    notes: list[str] = []
    one, other = list(a.members.values()), list(b.members.values())
    versions = differing(*([surroundings(member.manifest) for member in members] for members in (one, other)))
    data = differing(*([flat(m.manifest.get("data_sha256") or {}) for m in members] for members in (one, other)))
    tasks = [distinct([task_name(member) for member in members]) for members in (one, other)]
    if tasks[0] != tasks[1]:
        refuse(f"A is of task {', '.join(tasks[0])}, B of {', '.join(tasks[1])}", notes, force=force)
    pairs = paired(a, b)
    rows = over_seeds(*(recorded(side) for side in (a, b)), level=level)
    if not pairs:
        notes.append("the sides have no seed in common, so nothing is paired")
    elif len(pairs) < max(len(one), len(other)):
        notes.append(f"only the {len(pairs)} seeds that both sides have are paired")
    if pairs:
        rows += evaluated(pairs, evaluation, notes, level=level, force=force)
    return Comparison(
        a=a.name,
        b=b.name,
        untrained=[name for name, side in (("A", one), ("B", other)) if any(m.untrained for m in side)],
        settings=differing(*([flat(member.settings) for member in members] for members in (one, other))),
        versions=known_to_both(versions),
        data=known_to_both(data),
        results={"a": means(one), "b": means(other)},
        rows=rows,
        notes=notes,
    )


def refuse(reason: str, notes: list[str], *, force: bool) -> None:
    if not force:
        raise ConfigError(f"these are not alike: {reason}", hint=FORCE)
    notes.append(reason)


def task_name(member: Member) -> str:
    task = member.settings.get("task")
    return str(task.get("name") if isinstance(task, dict) else task)


def paired(a: Side, b: Side) -> list[tuple[Member, Member]]:
    if len(a.members) == len(b.members) == 1:
        return list(zip(a.members.values(), b.members.values(), strict=True))
    return [(member, b.members[seed]) for seed, member in a.members.items() if seed in b.members]


def recorded(side: Side) -> dict[int, Row]:
    """Seed -> what the run recorded, of those members that have it."""
    return {seed: member.result for seed, member in side.members.items() if member.result is not None}


def means(members: Sequence[Member]) -> Row:
    """Of what was recorded over the members of a side; None where nothing was."""
    results = [member.result for member in members if member.result is not None]
    found: Row = {"n": len(members)}
    for number in (*RECORDED, "seconds"):
        values = [result[number] for result in results if result[number] is not None]
        found[number] = float(np.mean(values)) if values and len(values) == len(members) else None
    return found


def evaluated(
    pairs: list[tuple[Member, Member]], evaluation: Evaluation | None, notes: list[str], *, level: float, force: bool
) -> list[Row]:
    """Rows over sequences of every pair; none, with a note, where the data or their sameness cannot be had.

    ArtifactError if a checkpoint cannot be read.
    """
    if evaluation is None:
        check_recorded_data(pairs, "nothing was evaluated", notes, force=force)
        return []
    rows, opener = [], evaluation.opener
    for member in (member for pair in pairs for member in pair):
        load_checkpoint(member.checkpoint)  # damaged weights are no reason to do without them, as missing data are
    for number, pair in enumerate(pairs):
        try:
            one, other = (opener.open(member.checkpoint) for member in pair)
        except ArtifactError as error:
            notes.append(f"checkpoints were not evaluated: {error}")
            check_recorded_data(pairs, "the data cannot be read", notes, force=force)
            return []
        if not same_split(one.split, other.split):
            refuse(f"their {opener.split} data are not the same, so sequences cannot be paired", notes, force=force)
            return []
        loss = common_loss(one, other)
        if loss is None:
            refuse("they were not trained for the same: reconstruction or labels", notes, force=force)
            loss = "label"
        rows += of_pair(one, other, evaluation, loss, level=level)
        evaluation.progress(number + 1, len(pairs))
    return rows


def of_pair(
    one: OpenedCheckpoint, other: OpenedCheckpoint, evaluation: Evaluation, loss: str, *, level: float
) -> list[Row]:
    subjects = [opened.subject() for opened in (one, other)]
    samples = subjects[0].draw(evaluation.n, 0)
    a, b = (outcomes(subject, samples, loss, memory_limit=evaluation.memory_limit) for subject in subjects)
    seeds = {opened.checkpoint.run.seed for opened in (one, other)}
    seed, split = seeds.pop() if len(seeds) == 1 else None, evaluation.opener.split.value
    return over_sequences(a, b, split=split, seed=seed, level=level, labels=loss == "label")


def check_recorded_data(pairs: list[tuple[Member, Member]], why: str, notes: list[str], *, force: bool) -> None:
    """Without the data themselves, only equal fingerprints say that they are the same."""
    if any(one.data is None or one.data != other.data for one, other in pairs):
        refuse(f"the fingerprints of their data are not the same, and {why}", notes, force=force)


def same_split(one: Split, other: Split) -> bool:
    """Whether they hold the same sequences with the same labels, in the same order."""
    tensors = [(one.inputs, other.inputs), (one.labels, other.labels), (one.lengths, other.lengths)]
    return one is other or all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y)) for x, y in tensors
    )


def common_loss(one: OpenedCheckpoint, other: OpenedCheckpoint) -> str | None:
    """What both were trained for last; None where these are not the same."""
    trained: list[Any] = []
    for opened in (one, other):
        checkpoint = opened.checkpoint
        reconstructs = checkpoint.phase == "pretrained" and checkpoint.pretrain is not None
        trained.append(checkpoint.pretrain.objective if reconstructs and checkpoint.pretrain else "label")
    if trained[0] != trained[1]:
        return None
    return "label" if trained[0] == "label" else "reconstruction"
