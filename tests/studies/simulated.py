"""Tables of results whose truth is known: arms that do not differ, or differ by known gains."""

import numpy as np

from attnprobe.studies.study import Outcome

ARMS, TASKS = ("scratch", "a", "b", "c", "d"), ("w", "x", "y", "z")


def noise(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Of mean zero and variance one."""
    if kind == "normal":
        return generator.standard_normal(shape)
    return generator.exponential(size=shape) - 1  # skewness 2


def table(
    seeds: int,
    kind: str,
    generator: np.random.Generator,
    *,
    gain: float = 0.0,
    shared: float = 1.0,
    only_treated: bool = False,
) -> list[Outcome]:
    """One study: 5 arms x 4 tasks. shared: spread of what a seed does to all arms of a task (its data order, its
    pretraining); only_treated: runs of the other arms vary, those from scratch do not, so that differences are as
    skewed as the runs.
    """
    values = 0.6 + 0.05 * noise(kind, (len(ARMS), len(TASKS), seeds), generator)
    values[1:] += gain
    if only_treated:
        values[0] = 0.6
    values += 0.05 * shared * noise(kind, (1, len(TASKS), seeds), generator)
    return [
        Outcome(place={"arm": arm, "task": task}, seed=seed, numbers={"test_accuracy": float(values[i, j, seed])})
        for i, arm in enumerate(ARMS)
        for j, task in enumerate(TASKS)
        for seed in range(seeds)
    ]
